//! The rules of `cargo xtask tidy` as a test, so that plain `cargo test` keeps them.

#[test]
fn the_workspace_is_tidy() {
    let problems = xtask::tidy::problems(&xtask::root()).expect("the workspace can be read");
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{} problems\n{}", lines.len(), lines.join("\n"));
}
