//! The two commands as an operator runs them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::scene::Scene;

fn martlet(folder: &Path, url: &str, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_martlet"));
    command.current_dir(folder).env_remove("MARTLET_CONFIG").args(arguments);
    if !url.is_empty() {
        command.env("MARTLET__STORAGE__DATABASE_URL", url).env("MARTLET__STORAGE__DURABILITY", "normal");
    }
    let output = command.output().expect("the program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn export_and_import_say_what_they_did_and_what_comes_next() {
    let scene = Scene::new().await;
    let data = scene.data.path().to_str().expect("UTF-8");
    let here = scene.folder.path();
    let (output, exported) = martlet(here, "", &["export", "export", "--data-dir", data]);
    assert!(output.status.success(), "{exported}");
    assert!(
        exported.contains("IT HOLDS node.secret TOO") && exported.contains("Do not start the old node again"),
        "{exported}"
    );
    let private = ["export", "export/node.secret", "export/tokens.rows", "export/manifest.json"];
    assert_eq!(private.map(|path| mode(&here.join(path))), [0o700, 0o600, 0o600, 0o600]);

    let (output, text) = martlet(here, "", &["import", "export", "--data-dir", data]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("there is a store at") && text.contains("storage.database_url"), "{text}");

    let url = scene.database.url().expect("a server");
    let (output, imported) = martlet(here, &url, &["import", "export"]);
    assert!(output.status.success(), "{imported}");
    assert!(imported.contains("every table was read back"), "{imported}");
    let sums = |text: &str| text.split("\n\n").next().unwrap_or_default().to_owned();
    assert_eq!(sums(&imported), sums(&exported), "the operator can compare them");
    println!("{imported}");
    assert_eq!(mode(&here.join("data/node.secret")), 0o600, "the secret is where a node looks for it");

    let (output, text) = martlet(here, "", &["export", "bare", "--without-secret", "--data-dir", data]);
    assert!(output.status.success() && text.contains("node.secret is NOT in it"), "{text}");
    assert!(!here.join("bare/node.secret").exists());
}
