//! Fetching the modules of one pipeline.

use super::http::{AnswerBody, HttpsClient, ServerPass};
use super::registry::{self, MANIFEST, MANIFEST_BYTES_MAX, RegistryManifest, RemotePlace};
use super::{
    FetchFailure, FetchedFiles, LOOK_EVERY, RETRY_AFTER, RemoteAddress, TRIES_MAX, failed, hex, lock,
};
use crate::trust::{self, ModuleDigest, SIGNATURE_BYTES_MAX};
use crate::{ModuleError, ModuleOrigin, precompiled};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use url::Url;

const NOT_HERE: &str = "it is not here, and has to be fetched first";

/// The fetching of one pipeline's modules.
pub(super) struct FetchRound<'a> {
    fetched: &'a FetchedFiles,
    owner: &'a str,
    is_online: bool,
    stop: &'a AtomicBool,
    /// The names of the files so far.
    names: BTreeSet<String>,
    /// The client, made when there is something to ask.
    http: Option<HttpsClient>,
    /// The credentials that each server took.
    passes: BTreeMap<String, ServerPass>,
}

/// A file that is wanted, and its address.
struct WantedFile<'a> {
    digest: ModuleDigest,
    url: &'a Url,
    accept: &'a str,
    bytes_max: u64,
    /// The setting that bounds it, for people.
    setting: &'a str,
}

impl<'a> FetchRound<'a> {
    pub(super) fn new(
        fetched: &'a FetchedFiles,
        owner: &'a str,
        is_online: bool,
        stop: &'a AtomicBool,
    ) -> Self {
        Self { fetched, owner, is_online, stop, names: BTreeSet::new(), http: None, passes: BTreeMap::new() }
    }

    pub(super) async fn files(
        mut self,
        origins: &[&ModuleOrigin],
    ) -> Result<Vec<ModuleOrigin>, (usize, ModuleError)> {
        let mut files = Vec::new();
        for (index, &origin) in origins.iter().enumerate() {
            let Some(remote) = &origin.remote else {
                files.push(origin.clone());
                continue;
            };
            let deadline = self.fetched.config.deadline;
            let stop = self.stop;
            let fetched = tokio::select! {
                fetched = timeout(deadline, self.file(origin, remote)) => fetched.unwrap_or_else(|_| {
                    Err(FetchFailure::MayPass(format!("it took longer than {deadline:?}: look after the server, or raise `deadline` in [modules.fetch]")))
                }),
                () = until(stop) => Err(FetchFailure::MayPass("the agent stops".to_owned())),
            };
            files.push(fetched.map_err(|failure| (index, self.error(origin, failure)))?);
        }
        lock(&self.fetched.named).insert(self.owner.to_owned(), self.names);
        Ok(files)
    }

    fn error(&self, origin: &ModuleOrigin, failure: FetchFailure) -> ModuleError {
        if self.is_online {
            self.fetched.metrics.failures.inc();
        }
        match failure {
            FetchFailure::MayPass(reason) | FetchFailure::Lasts(reason) => failed(origin, &reason),
            FetchFailure::Wrong(found) => {
                let expected = origin.digest.unwrap_or(found);
                ModuleError::WrongDigest { file: origin.file.clone(), expected, found }
            }
        }
    }

    async fn file(
        &mut self,
        origin: &ModuleOrigin,
        remote: &RemoteAddress,
    ) -> Result<ModuleOrigin, FetchFailure> {
        let not_pinned = || FetchFailure::Lasts("it is not pinned: add its `digest`".to_owned());
        let (digest, url, signature) = match &remote.place {
            RemotePlace::Https(url) => (origin.digest.ok_or_else(not_pinned)?, url.clone(), None),
            RemotePlace::Oci { repository, manifest } => {
                let manifest = self.manifest(repository, *manifest).await?;
                let found = manifest
                    .module()
                    .map_err(|words| FetchFailure::Lasts(format!("of its manifest: {words}")))?;
                if origin.digest.is_some_and(|expected| expected != found) {
                    return Err(FetchFailure::Wrong(found));
                }
                let signature = manifest.signature().map(str::to_owned);
                (found, join(repository, &format!("blobs/{found}"))?, Some(signature))
            }
        };
        let bytes_max = self.fetched.config.bytes_max;
        let setting = ", `bytes_max` in [modules.fetch]";
        let wanted = WantedFile { digest, url: &url, accept: "*/*", bytes_max, setting };
        let mut file = self.get(&wanted).await?;
        if !self.fetched.keys.is_empty() {
            file = self.signed(file, digest, &url, signature).await?;
        }
        Ok(ModuleOrigin { file, remote: origin.remote.clone(), digest: Some(digest) })
    }

    async fn manifest(
        &mut self,
        repository: &Url,
        digest: ModuleDigest,
    ) -> Result<RegistryManifest, FetchFailure> {
        let url = join(repository, &format!("manifests/{digest}"))?;
        let wanted =
            WantedFile { digest, url: &url, accept: MANIFEST, bytes_max: MANIFEST_BYTES_MAX, setting: "" };
        let file = self.get(&wanted).await?;
        let bytes = fs::read(&file).map_err(|error| lasts(&error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| FetchFailure::Lasts(format!("{url} is no manifest: {error}")))
    }

    /// Returns the file with its signature beside it, if there is one, which is judged at each load.
    async fn signed(
        &mut self,
        file: PathBuf,
        digest: ModuleDigest,
        url: &Url,
        of_manifest: Option<Option<String>>,
    ) -> Result<PathBuf, FetchFailure> {
        let bytes = fs::read(&file).map_err(|error| lasts(&error))?;
        if precompiled::is(&bytes) || trust::is_signed(&file, &bytes, &self.fetched.keys) || !self.is_online {
            return Ok(file);
        }
        let signature = match of_manifest {
            Some(signature) => signature.map(String::into_bytes),
            None => self.signature(url).await?,
        };
        let Some(signature) = signature else { return Ok(file) };
        let name = hex(&digest.0);
        let here = self.fetched.folder.join(&name);
        if here != file {
            self.keep(&name, &bytes)?;
        }
        self.keep(&format!("{name}.sig"), &signature)?;
        Ok(here)
    }

    /// Gets `<url>.sig`.
    async fn signature(&mut self, url: &Url) -> Result<Option<Vec<u8>>, FetchFailure> {
        let mut beside = url.clone();
        beside.set_path(&format!("{}.sig", url.path()));
        let mut signature = Vec::new();
        let take = |chunk: &[u8]| {
            signature.extend_from_slice(chunk);
            Ok(())
        };
        match self.ask(&beside, "*/*", (SIGNATURE_BYTES_MAX, ""), take).await {
            Ok(()) => Ok(Some(signature)),
            Err(FetchFailure::Lasts(reason)) => {
                warn!(url = %beside, reason, "failed to fetch the signature");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), FetchFailure> {
        let unfinished = self.fetched.begin(name).and_then(|mut unfinished| {
            unfinished.write(bytes)?;
            unfinished.finish()
        });
        unfinished.map_err(|error| lasts(&error))
    }

    /// Fetches a file, unless it is here.
    async fn get(&mut self, wanted: &WantedFile<'_>) -> Result<PathBuf, FetchFailure> {
        let name = hex(&wanted.digest.0);
        let _turn = loop {
            match self.fetched.turn(&name) {
                Some(turn) => break turn,
                None => sleep(LOOK_EVERY).await,
            }
        };
        self.names.insert(name.clone());
        lock(&self.fetched.named).entry(self.owner.to_owned()).or_default().insert(name.clone());
        if let Some(file) = self.fetched.find(&name, wanted.digest) {
            return Ok(file);
        }
        if !self.is_online {
            return Err(FetchFailure::Lasts(NOT_HERE.to_owned()));
        }
        let mut tries = 1;
        loop {
            match self.download(wanted, &name).await {
                Err(FetchFailure::MayPass(words)) if tries < TRIES_MAX => {
                    self.fetched.metrics.repeated_requests.inc();
                    let wait = RETRY_AFTER * (1 << (tries - 1));
                    warn!(url = %wanted.url, reason = words, "failed to fetch, trying again");
                    sleep(wait / 2 + (wait / 2).mul_f64(fastrand::f64())).await;
                    tries += 1;
                }
                Err(failure) => return Err(failure),
                Ok(()) => return Ok(self.fetched.folder.join(&name)),
            }
        }
    }

    async fn download(&mut self, wanted: &WantedFile<'_>, name: &str) -> Result<(), FetchFailure> {
        let mut unfinished = self.fetched.begin(name).map_err(|error| lasts(&error))?;
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let take = |chunk: &[u8]| {
            hash.update(chunk);
            bytes += chunk.len() as u64;
            unfinished.write(chunk)
        };
        self.ask(wanted.url, wanted.accept, (wanted.bytes_max, wanted.setting), take).await?;
        let url = wanted.url;
        let expected = wanted.digest;
        let found = ModuleDigest(hash.finalize().into());
        if found != expected {
            let words = format!("{url} answers with something else: expected {expected}, found {found}");
            return Err(FetchFailure::Lasts(words));
        }
        self.fetched.make_room(bytes)?;
        unfinished.finish().map_err(|error| lasts(&error))?;
        self.fetched.metrics.files.inc();
        self.fetched.metrics.bytes.inc_by(bytes);
        info!(%url, bytes, pipeline = self.owner, "fetched");
        Ok(())
    }

    /// Makes one request, with the credentials that the server asks for.
    async fn ask(
        &mut self,
        url: &Url,
        accept: &str,
        (bytes_max, setting): (u64, &str),
        take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), FetchFailure> {
        let config = &self.fetched.config;
        let http = match &mut self.http {
            Some(http) => http,
            none => none.insert(HttpsClient::new(config.ca.clone())?),
        };
        let server = url.authority().to_owned();
        let pass = self.passes.entry(server).or_insert(ServerPass::None);
        let body: AnswerBody = registry::get(http, url, accept, config, pass).await?;
        body.read(bytes_max, setting, take).await
    }
}

async fn until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20)).await;
    }
}

fn join(base: &Url, path: &str) -> Result<Url, FetchFailure> {
    base.join(path).map_err(|error| FetchFailure::Lasts(error.to_string()))
}

fn lasts(error: &std::io::Error) -> FetchFailure {
    FetchFailure::Lasts(error.to_string())
}
