//! How the programs `berth` and `berthd` are linked.

fn main() {
    println!("cargo::rerun-if-env-changed=CARGO_CFG_TARGET_ENV");
    // Where its own addresses stand, for the loader to correct: as a bitmap instead of 400 KB of records that each start reads.
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
