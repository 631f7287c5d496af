use super::*;
use headwater_bundle::CELSIUS;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::fs;

fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let key = PublicKey(pair.public_key().as_ref().try_into().unwrap());
    (pair, key)
}

/// A module in a folder, signed with the key made of 1.
fn signed() -> (tempfile::TempDir, ModuleOrigin) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("celsius.wasm");
    fs::write(&file, CELSIUS).unwrap();
    fs::write(signature_file(&file), BASE64.encode(pair(1).0.sign(CELSIUS)) + "\n").unwrap();
    let origin = ModuleOrigin { file, remote: None, digest: None };
    (folder, origin)
}

fn judged(origin: &ModuleOrigin, keys: &[PublicKey]) -> Result<(), String> {
    let bytes = fs::read(&origin.file).unwrap();
    check_digest(origin, ModuleDigest::of(&bytes))
        .and_then(|()| check_signature(&origin.file, &bytes, keys))
        .map_err(|error| error.to_string())
}

#[test]
fn another_digest_is_refused_with_both() {
    let (_folder, mut origin) = signed();
    origin.digest = Some(ModuleDigest::of(CELSIUS));
    judged(&origin, &[]).unwrap();
    let other = ModuleDigest::of(b"another");
    origin.digest = Some(other);
    let error = judged(&origin, &[]).unwrap_err();
    let both = format!("expected {other}, found {}", ModuleDigest::of(CELSIUS));
    assert!(error.contains(&both) && error.contains("celsius.wasm"), "{error}");
}

#[test]
fn with_keys_a_module_needs_a_signature_by_one_of_them() {
    let (_folder, origin) = signed();
    judged(&origin, &[pair(2).1, pair(1).1]).unwrap();
    let error = judged(&origin, &[pair(2).1]).unwrap_err();
    assert!(error.contains("celsius.wasm.sig is by none of the keys"), "{error}");
    let far = " ".repeat(256) + &BASE64.encode(pair(1).0.sign(CELSIUS));
    fs::write(signature_file(&origin.file), far).unwrap();
    judged(&origin, &[pair(1).1]).expect_err("more than a signature is read");
    fs::write(signature_file(&origin.file), "no signature").unwrap();
    let error = judged(&origin, &[pair(1).1]).unwrap_err();
    assert!(error.contains("it is no base64"), "{error}");
    fs::remove_file(signature_file(&origin.file)).unwrap();
    let error = judged(&origin, &[pair(1).1]).unwrap_err();
    assert!(error.contains("no signature can be read from") && error.contains("module sign"), "{error}");
    judged(&origin, &[]).unwrap();
}

#[test]
fn a_module_that_was_changed_after_it_was_signed_is_refused() {
    let (_folder, origin) = signed();
    let mut bytes = CELSIUS.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&origin.file, bytes).unwrap();
    let error = judged(&origin, &[pair(1).1]).unwrap_err();
    assert!(error.contains("or of another file"), "{error}");
}

/// RFC 8032, 7.1, test 3.
#[test]
fn signatures_are_ed25519() {
    let key = PublicKey(of_hex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"));
    let signature: [u8; 64] = of_hex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
         18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    );
    assert!(key.signed(&[0xaf, 0x82], &signature));
    assert!(!key.signed(&[0xaf, 0x83], &signature));
}

#[test]
fn digests_and_keys_are_read_as_they_are_written() {
    let digest = ModuleDigest::of(b"");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let key = pair(1).1;
    assert_eq!(key.to_string().parse(), Ok(key));
    let short = &digest.to_string()[..70];
    for wrong in ["", "sha256:", short, &digest.to_string()[7..], &format!("sha256:{}", "+1".repeat(32))] {
        assert!(wrong.parse::<ModuleDigest>().is_err(), "{wrong}");
    }
    for wrong in ["", "ed25519:", "ed25519:AAAA", &key.to_string()[8..]] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
    }
}

fn of_hex<const N: usize>(text: &str) -> [u8; N] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}
