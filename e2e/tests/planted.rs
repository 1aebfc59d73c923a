//! The bugs that are planted to try the nemesis are in a build of their own, and in no other.

use martlet_e2e::{nemesis::planted::Bug, node::binary};

/// What switches a planted bug on.
const VARIABLE: &[u8] = b"MARTLET_PLANTED";

#[test]
fn the_node_knows_no_planted_bugs() {
    let node = std::fs::read(binary::path("martlet").expect("the node is built")).expect("it can be read");
    assert!(!node.windows(VARIABLE.len()).any(|bytes| bytes == VARIABLE), "the node reads MARTLET_PLANTED");
    for bug in Bug::ALL {
        let name = bug.name().as_bytes();
        assert!(!node.windows(name.len()).any(|bytes| bytes == name), "the node knows {}", bug.name());
    }
}

#[test]
fn a_bug_is_known_by_its_name() {
    assert_eq!(Bug::parse("all").expect("known"), Bug::ALL);
    for bug in Bug::ALL {
        assert_eq!(Bug::parse(bug.name()).expect("known"), [bug]);
    }
    assert!(Bug::parse("none").is_err());
}
