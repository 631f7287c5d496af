//! OCI registries: references, manifests, and the challenges of servers.
//!
//! A module is pushed as an artifact of one layer `application/wasm`, as `wkg oci push` and `oras push` do
//! it; the manifest names that layer by its digest, and is itself pinned by its own.

use super::http::{AnswerBody, HttpsClient, ServerAnswer, ServerPass};
use super::{FetchConfig, FetchFailure};
use crate::trust::ModuleDigest;
use headwater_access::secret::Revealed;
use serde::Deserialize;
use std::str::FromStr;
use url::Url;

/// The type of the layer.
const WASM: &str = "application/wasm";
/// The type that is asked for.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The size of the largest manifest, which is the largest that registries take.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// The size of the largest token; most have some kilobytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// The annotation of a manifest with the signature of its module.
const SIGNATURE: &str = "headwater.signature";

/// The address of a module on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAddress {
    text: String,
    pub(super) place: RemotePlace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RemotePlace {
    /// `https://…`.
    Https(Url),
    /// `oci://REGISTRY/REPOSITORY[:TAG]@sha256:…`.
    Oci {
        /// The repository's `https://REGISTRY/v2/REPOSITORY/`.
        repository: Url,
        manifest: ModuleDigest,
    },
}

impl RemoteAddress {
    /// Returns true if the address itself pins the module.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        matches!(self.place, RemotePlace::Oci { .. })
    }

    /// Returns the address as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the module's name, for people.
    pub(crate) fn name(&self) -> &str {
        let path = match &self.place {
            RemotePlace::Https(url) => url.path(),
            RemotePlace::Oci { repository, .. } => repository.path().trim_end_matches('/'),
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        name.split_once('.').map_or(name, |(stem, _)| stem)
    }
}

impl FromStr for RemoteAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HTTPS: &str =
            "write a file's path, \"https://HOST/PATH\" or \"oci://REGISTRY/REPOSITORY:TAG@sha256:…\"";
        let place = match text.strip_prefix("oci://") {
            Some(reference) => oci(reference)
                .ok_or("write \"oci://REGISTRY/REPOSITORY:TAG@sha256:DIGEST\", with the manifest's digest")?,
            None => {
                let url: Url = text.parse().map_err(|_| HTTPS)?;
                let plain = url.username().is_empty() && url.password().is_none();
                if url.scheme() != "https" || !plain {
                    return Err(HTTPS);
                }
                RemotePlace::Https(url)
            }
        };
        Ok(Self { text: text.to_owned(), place })
    }
}

fn oci(reference: &str) -> Option<RemotePlace> {
    let (name, manifest) = reference.rsplit_once('@')?;
    let (registry, repository) = name.split_once('/')?;
    let repository = repository.split_once(':').map_or(repository, |(repository, _)| repository);
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
    if repository.is_empty() || repository.contains("..") || !repository.bytes().all(plain) {
        return None;
    }
    let repository: Url = format!("https://{registry}/v2/{repository}/").parse().ok()?;
    let plain = repository.username().is_empty() && repository.password().is_none();
    Some(RemotePlace::Oci { repository, manifest: manifest.parse().ok().filter(|_| plain)? })
}

/// The parts of a manifest that are read.
#[derive(Debug, Deserialize)]
pub(super) struct RegistryManifest {
    #[serde(default)]
    layers: Vec<ManifestLayer>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestLayer {
    media_type: String,
    digest: String,
}

impl RegistryManifest {
    /// Returns the digest of the layer that is the module.
    pub(super) fn module(&self) -> Result<ModuleDigest, String> {
        let mut modules = self.layers.iter().filter(|layer| layer.media_type == WASM);
        match (modules.next(), modules.next()) {
            (Some(layer), None) => {
                layer.digest.parse().map_err(|_| format!("its layer has the digest {:?}", layer.digest))
            }
            (None, _) => Err(format!("it has no layer of the type {WASM}")),
            _ => Err(format!("it has several layers of the type {WASM}: push each module by itself")),
        }
    }

    /// Returns the text of the module's signature.
    pub(super) fn signature(&self) -> Option<&str> {
        self.annotations.get(SIGNATURE).map(String::as_str)
    }
}

/// Gets a file, with credentials if the server asks for them, at most once; `pass` becomes those that it took, for the
/// next time.
pub(super) async fn get(
    http: &HttpsClient,
    url: &Url,
    accept: &str,
    config: &FetchConfig,
    pass: &mut ServerPass,
) -> Result<AnswerBody, FetchFailure> {
    let challenge = match http.get(url, accept, pass).await? {
        ServerAnswer::Body(body) => return Ok(body),
        ServerAnswer::Challenge(challenge) => challenge,
    };
    *pass = answer(http, url, &challenge, config).await?;
    match http.get(url, accept, pass).await? {
        ServerAnswer::Body(body) => Ok(body),
        ServerAnswer::Challenge(_) => Err(FetchFailure::Lasts(refusal(url, config))),
    }
}

fn refusal(url: &Url, config: &FetchConfig) -> String {
    let host = host(url);
    let remedy = match config.credentials.contains_key(&host) {
        true => "they are refused: correct them, or give them the right to read it",
        false => "there are none",
    };
    format!("{url}: it asks for `credentials` of {host} in [modules.fetch], and {remedy}")
}

/// Returns the name that `credentials` are found by: with the port, if that is written.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

async fn answer(
    http: &HttpsClient,
    url: &Url,
    challenge: &str,
    config: &FetchConfig,
) -> Result<ServerPass, FetchFailure> {
    let own = match config.credentials.get(&host(url)) {
        Some(own) => {
            let password = own.password.read().map_err(|error| FetchFailure::Lasts(error.to_string()))?;
            ServerPass::Basic(own.username.clone(), password)
        }
        None => ServerPass::None,
    };
    let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
    match (scheme.to_ascii_lowercase().as_str(), &own) {
        ("basic", ServerPass::Basic(..)) => Ok(own),
        ("bearer", _) => token(http, url, parameters, &own).await.map(ServerPass::Bearer),
        _ => Err(FetchFailure::Lasts(refusal(url, config))),
    }
}

/// Gets a token from the server that the registry names: anybody's, without credentials.
async fn token(
    http: &HttpsClient,
    url: &Url,
    parameters: &str,
    own: &ServerPass,
) -> Result<Revealed, FetchFailure> {
    let lasts = |words: &str| FetchFailure::Lasts(format!("{url}: {words}"));
    let realm = parameter(parameters, "realm").and_then(|realm| realm.parse::<Url>().ok());
    let mut realm = realm.ok_or_else(|| lasts("it asks for a token and does not say of whom"))?;
    for name in ["service", "scope"] {
        if let Some(value) = parameter(parameters, name) {
            realm.query_pairs_mut().append_pair(name, value);
        }
    }
    let ServerAnswer::Body(body) = http.get(&realm, "application/json", own).await? else {
        return Err(lasts(&format!("{realm} gives no token for these `credentials`")));
    };
    let mut bytes = Vec::new();
    body.read(TOKEN_BYTES_MAX, "", |chunk| {
        bytes.extend_from_slice(chunk);
        Ok(())
    })
    .await?;
    let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
    let token = token.ok_or_else(|| lasts(&format!("{realm} gives no token")))?;
    Ok(Revealed::of(token))
}

/// Returns a parameter of `a="x",b="y,z"` (RFC 9110, 11.2): values are quoted and without escapes, as registries write
/// them.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = parameters;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').map_or((after, ""), |(value, after)| (value, after)),
        };
        if key.trim().trim_start_matches(',').trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_apart_with_its_commas() {
        let challenge = r#"realm="https://auth.example/token",service="registry.example", scope="repository:plant/celsius:pull,push",error=x"#;
        let found = |name| parameter(challenge, name);
        assert_eq!(found("realm"), Some("https://auth.example/token"));
        assert_eq!(found("Service"), Some("registry.example"));
        assert_eq!(found("scope"), Some("repository:plant/celsius:pull,push"));
        assert_eq!(found("error"), Some("x"));
        assert_eq!(found("other"), None);
        assert_eq!(parameter("realm=\"open", "realm"), None);
    }

    #[test]
    fn a_reference_is_pinned_and_has_no_secrets() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for good in ["r.example/plant/celsius", "r.example:5000/celsius:1.0", "127.0.0.1:1/a/b-c_d.e:x"] {
            let remote: RemoteAddress = format!("oci://{good}@{digest}").parse().unwrap();
            assert!(remote.is_pinned(), "{good}");
        }
        let at = |repository: &str| format!("oci://{repository}@{digest}");
        let unpinned = "oci://r.example/celsius:1.0".to_owned();
        for bad in [unpinned, at("r.example"), at("r/../x"), at("r/UPPER"), at("u:p@r/x"), at("r/x?y")] {
            assert!(bad.parse::<RemoteAddress>().is_err(), "{bad}");
        }
        for bad in ["http://h/x.wasm", "https://u:p@h/x.wasm", "ftp://h/x", "https://"] {
            assert!(bad.parse::<RemoteAddress>().is_err(), "{bad}");
        }
        let name = |text: &str| text.parse::<RemoteAddress>().unwrap().name().to_owned();
        assert_eq!(name("https://h/a/scale.v2.wasm?x=1"), "scale");
        assert_eq!(name(&at("r/plant/celsius:1.0")), "celsius");
    }
}
