use super::*;
use crate::CallMetrics;
use crate::{HostConfig, ModuleHost, ModuleLimits, TransformModule};
use headwater_bundle::{CELSIUS, CELSIUS_PATH};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::fs;

fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let key = PublicKey(pair.public_key().as_ref().try_into().unwrap());
    (pair, key)
}

fn compiled(target: Option<&str>) -> Result<Vec<u8>, ModuleError> {
    make(Path::new(CELSIUS_PATH), target, |message| pair(1).0.sign(message).as_ref().try_into().unwrap())
}

fn loaded(bytes: &[u8], keys: &[PublicKey]) -> Result<TransformModule, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("celsius.cwasm");
    fs::write(&file, bytes).unwrap();
    let host = ModuleHost::judging(HostConfig { keys: keys.to_vec(), ..HostConfig::default() }).unwrap();
    let loaded = host.transform(&file, r#"{"field":"t"}"#, &ModuleLimits::default(), &CallMetrics::default());
    loaded.map_err(|error| error.to_string())
}

/// Signs as a key's owner would by mistake, or with another version.
fn resigned(whole: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut changed = whole.to_vec();
    change(&mut changed);
    let message = message(&changed[80..HEAD_BYTES], &changed[HEAD_BYTES..]);
    let signature = pair(1).0.sign(&message);
    changed[16..80].copy_from_slice(signature.as_ref());
    changed
}

#[test]
fn another_version_of_agent_or_engine_is_refused_before_its_code_is_looked_at() {
    let whole = compiled(None).unwrap();
    let own = machine_of(std::env::consts::ARCH);
    for (other, code) in
        [(own.replace("headwater-", "headwater-9"), false), (own.replace("-48", "-47"), true)]
    {
        let bytes = resigned(&whole, |bytes| {
            bytes[112..112 + other.len()].copy_from_slice(other.as_bytes());
            if code {
                bytes.truncate(HEAD_BYTES + 7);
            }
        });
        let error = loaded(&bytes, &[pair(1).1]).unwrap_err();
        assert!(error.contains(&other) && error.contains(&own) && error.contains("--target"), "{error}");
    }
    // The engine looks once more: a whole head does not make code of what is none.
    let error = loaded(&resigned(&whole, |bytes| bytes.truncate(HEAD_BYTES + 7)), &[pair(1).1]).unwrap_err();
    assert!(error.contains("its code is for another machine"), "{error}");
}

#[test]
fn the_engine_is_the_one_that_is_built_in() {
    let lock = include_str!("../../../../Cargo.lock");
    let version = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).unwrap();
    assert_eq!(ENGINE, format!("wasmtime-{}", version.split('.').next().unwrap()));
}

#[test]
fn it_is_the_module_that_it_was_made_of() {
    let module = loaded(&compiled(None).unwrap(), &[pair(2).1, pair(1).1]).unwrap();
    assert_eq!(module.digest(), ModuleDigest::of(CELSIUS).to_string());
}

#[test]
fn what_no_key_signed_is_never_loaded() {
    let whole = compiled(None).unwrap();
    let without = loaded(&whole, &[]).unwrap_err();
    assert!(without.contains("only with its maker's key"), "{without}");
    let others = loaded(&whole, &[pair(2).1]).unwrap_err();
    assert!(others.contains("signed with none of `keys`"), "{others}");
    let head = [16, 79, 80, 111, 112, 175];
    for at in head.into_iter().chain([HEAD_BYTES, whole.len() / 2, whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let error = loaded(&changed, &[pair(1).1]).unwrap_err();
        assert!(error.contains("it is changed"), "byte {at}: {error}");
    }
    for len in [16, HEAD_BYTES - 1, HEAD_BYTES, whole.len() - 1] {
        assert!(loaded(&whole[..len], &[pair(1).1]).is_err(), "cut to {len}");
    }
}

#[test]
fn another_machines_is_refused_and_a_target_without_a_compiler_is_named() {
    let other = match std::env::consts::ARCH {
        "aarch64" => "x86_64-unknown-linux-musl",
        _ => "aarch64-unknown-linux-musl",
    };
    let error = loaded(&compiled(Some(other)).unwrap(), &[pair(1).1]).unwrap_err();
    assert!(error.contains("it is for another machine") && error.contains(std::env::consts::ARCH), "{error}");
    assert!(error.contains("--target"), "{error}");
    let own = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    loaded(&compiled(Some(&own)).unwrap(), &[pair(1).1]).unwrap();
    for target in ["riscv64gc-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        compiled(Some(target)).unwrap();
    }
    for target in ["armv7-unknown-linux-musleabihf", "x86_64-pc-windows-msvc", "toaster"] {
        let error = compiled(Some(target)).unwrap_err().to_string();
        assert!(error.contains(target) && error.contains("there are compilers for aarch64-"), "{error}");
    }
}
