//! Replays what the fuzz target knows: messages of every kind, and what was ever wrong with one.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_does_no_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/packet");
    let mut messages = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let data = fs::read(file.unwrap().path()).unwrap();
        berth_dns::fuzzing::packet(&data);
        // And with every end missing, and every byte wrong.
        for at in 0..data.len() {
            berth_dns::fuzzing::packet(&data[..at]);
            let mut wrong = data.clone();
            wrong[at] = !wrong[at];
            berth_dns::fuzzing::packet(&wrong);
        }
        messages += 1;
    }
    assert!(messages >= 40, "only {messages} in {}", folder.display());
}
