use super::*;
use headwater_agent::module::CallMetrics;
use headwater_agent::module::{ModuleError, ModuleHost, ModuleLimits};
use headwater_bundle::{CELSIUS, CORE_MODULE};
use std::os::unix::fs::PermissionsExt;

/// A folder with a module, and a key.
fn keyed() -> (tempfile::TempDir, SignOptions) {
    let folder = tempfile::tempdir().unwrap();
    let options = SignOptions { file: folder.path().join("celsius.wasm"), key: folder.path().join("key") };
    fs::write(&options.file, CELSIUS).unwrap();
    make_key(&KeyOptions { file: options.key.clone() }).unwrap();
    (folder, options)
}

#[test]
fn what_is_signed_here_is_what_a_host_with_the_key_takes() {
    let (_folder, options) = keyed();
    let keys = vec![public(&private(&options.key).unwrap())];
    let host =
        ModuleHost::judging(headwater_agent::module::HostConfig { keys, ..Default::default() }).unwrap();
    let load = || {
        let loaded = host.transform(
            &options.file,
            r#"{"field":"t"}"#,
            &ModuleLimits::default(),
            &CallMetrics::default(),
        );
        loaded.map(drop)
    };
    assert!(matches!(load(), Err(ModuleError::Unsigned { .. })));
    run(&options).unwrap();
    load().unwrap();
}

#[test]
fn a_private_key_is_for_its_owner_and_never_overwritten() {
    let (_folder, options) = keyed();
    let mode = fs::metadata(&options.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = make_key(&KeyOptions { file: options.key.clone() }).unwrap_err();
    assert!(format!("{error:#}").contains("File exists"), "{error:#}");
}

#[test]
fn only_components_are_signed() {
    let (_folder, options) = keyed();
    fs::write(&options.file, CORE_MODULE).unwrap();
    let error = run(&options).unwrap_err().to_string();
    assert!(error.contains("found a core module"), "{error}");
}

/// RFC 8410, 10.1 and 10.3: as openssl writes them.
#[test]
fn keys_are_those_of_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    fs::write(&file, pem).unwrap();
    assert_eq!(
        public(&private(&file).unwrap()).to_string(),
        "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    );
    fs::write(&file, pem.replace("MC4C", "MC4D")).unwrap();
    let error = private(&file).unwrap_err().to_string();
    assert!(error.contains("expected an Ed25519 private key"), "{error}");
}
