use super::*;
use crate::{FILE_BYTES_MAX, ModuleError};
use headwater_bundle::{
    CELSIUS, CELSIUS_PATH, CORE_MODULE, HOSTILE, HOSTILE_AGGREGATE_PATH, HOSTILE_PATH, STATS_PATH,
};
use std::fs;

fn refusal(path: &Path) -> ModuleError {
    let host = ModuleHost::new(None).unwrap();
    host.transform(path, r#"{"field":"t"}"#, &limits(), &CallMetrics::default()).unwrap_err()
}

/// A file of these bytes is refused with this in the message.
#[track_caller]
fn check(wasm: &[u8], message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.wasm");
    fs::write(&file, wasm).unwrap();
    let found = refusal(&file).to_string();
    assert!(found.contains(message), "{found}");
    assert!(found.contains("module.wasm"), "{found}");
}

/// The module with another name for an import; of the same length, as it is a patch.
fn renamed(wasm: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let from = from.as_bytes();
    let to = to.as_bytes();
    let mut wasm = wasm.to_vec();
    let mut at = 0;
    while let Some(found) = wasm[at..].windows(from.len()).position(|bytes| bytes == from) {
        at += found;
        wasm[at..at + to.len()].copy_from_slice(to);
    }
    assert!(at > 0, "nothing to rename");
    wasm
}

#[test]
fn what_is_no_component_is_refused_as_what_it_is() {
    check(CORE_MODULE, "expected a WebAssembly component, found a core module");
    check(b"", "found an empty file");
    check(b"fn main() {}", "found something that is not WebAssembly");
    for bytes in [8, 100, HOSTILE.len() / 2, HOSTILE.len() - 1] {
        let found = if bytes == 8 { "no `process` among" } else { "found a damaged one" };
        check(&HOSTILE[..bytes], found);
    }
}

#[test]
fn a_file_that_is_missing_or_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.wasm");
    assert!(matches!(refusal(&file), ModuleError::Read { .. }));
    fs::File::create(&file).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert!(matches!(refusal(&file), ModuleError::TooLarge { .. }));
}

#[test]
fn an_import_is_refused_by_its_name() {
    let logging = "headwater:module/logging@0.1.0";
    let files = renamed(CELSIUS, logging, "wasi:filesystem/preopens@0.2.0");
    check(&files, "it imports `wasi:filesystem/preopens@0.2.0`");
    let unknown = renamed(CELSIUS, logging, "headwater:module/secrets@0.1.0");
    check(&unknown, "it imports `headwater:module/secrets@0.1.0`");
}

#[test]
fn another_version_is_refused_with_both() {
    let newer = renamed(CELSIUS, "headwater:module/types@0.1.0", "headwater:module/types@0.2.0");
    check(&newer, "expected headwater:module@0.1.0, found 0.2.0");
}

#[test]
fn a_patch_of_the_same_version_is_accepted() {
    let patch = renamed(CELSIUS, "@0.1.0", "@0.1.7");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.wasm");
    fs::write(&file, patch).unwrap();
    let mut celsius = transform(file.to_str().unwrap(), r#"{"field":"t"}"#);
    let (out, _) = celsius.process(&[event(r#"{"t":32}"#)]);
    assert_eq!(out[0].payload, br#"{"t":0.0}"#);
}

#[test]
fn the_wrong_world_is_refused_with_what_it_exports() {
    let error = refusal(Path::new(STATS_PATH)).to_string();
    assert!(error.contains("expected the world `transform`, found no `process`"), "{error}");
    assert!(error.contains(r#""init", "update", "merge", "finish""#), "{error}");
    let host = ModuleHost::new(None).unwrap();
    let path = Path::new(CELSIUS_PATH);
    let error = host.aggregate(path, "{}", &limits(), &CallMetrics::default()).unwrap_err();
    assert!(error.to_string().contains("expected the world `aggregate`, found no `update`"));
}

#[test]
fn settings_that_the_module_refuses_are_a_config_fault() {
    #[track_caller]
    fn check(path: &str, config: &str, settings: bool, message: &str) {
        let host = ModuleHost::new(None).unwrap();
        let load = || host.transform(Path::new(path), config, &limits(), &CallMetrics::default());
        let error = in_time(load).unwrap_err();
        assert_eq!(matches!(error, ModuleError::Settings { .. }), settings, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    check(HOSTILE_PATH, r#"{"do":"init-error"}"#, true, "hostile settings");
    check(CELSIUS_PATH, r#"{"field":"t","from":"rankine"}"#, true, "unknown variant `rankine`");
    check(CELSIUS_PATH, "{}", true, "missing field `field`");
    check(HOSTILE_PATH, r#"{"do":"init-panic"}"#, false, "hostile start");
    check(HOSTILE_PATH, r#"{"do":"init-loop"}"#, false, "deadline of 200ms passed");
}

#[test]
fn the_digest_is_that_of_the_file() {
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(CELSIUS).iter().map(|byte| format!("{byte:02x}")).collect();
    let celsius = transform(CELSIUS_PATH, r#"{"field":"t"}"#);
    assert_eq!(celsius.digest(), format!("sha256:{digest}"));
    assert_ne!(aggregate(HOSTILE_AGGREGATE_PATH, "{}").digest(), celsius.digest());
}

#[test]
fn only_the_file_that_is_pinned_is_loaded() {
    use crate::{ModuleDigest, ModuleOrigin};
    let host = ModuleHost::new(None).unwrap();
    let load = |digest: ModuleDigest| {
        let origin = ModuleOrigin { file: CELSIUS_PATH.into(), remote: None, digest: Some(digest) };
        host.transform(&origin, r#"{"field":"t"}"#, &limits(), &CallMetrics::default()).map(drop)
    };
    load(ModuleDigest::of(CELSIUS)).unwrap();
    assert!(matches!(load(ModuleDigest::of(HOSTILE)), Err(ModuleError::WrongDigest { .. })));
}

#[test]
fn with_keys_an_unsigned_file_is_not_even_compiled() {
    let keys = vec!["ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap()];
    let host = ModuleHost::judging(crate::HostConfig { keys, ..Default::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.wasm");
    fs::write(&file, b"no module").unwrap();
    let error = host.transform(&file, "{}", &limits(), &CallMetrics::default()).map(drop).unwrap_err();
    assert!(matches!(error, ModuleError::Unsigned { .. }), "{error}");
}
