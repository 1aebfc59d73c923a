//! How nodes tell each other what was committed. Embedded: there is one node, so this only passes on.
