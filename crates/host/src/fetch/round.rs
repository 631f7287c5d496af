//! One pipeline's modules on their way here.

use super::http::{Body, Http, Pass};
use super::registry::{self, MANIFEST, MANIFEST_BYTES_MAX, Manifest, Place};
use super::{Failure, LOOK_EVERY, RETRY_AFTER, Remote, Shelf, TRIES_MAX, failed, hex, lock};
use crate::trust::{self, Digest, SIGNATURE_BYTES_MAX};
use crate::{Error, Origin, precompiled};
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

pub(super) struct Round<'a> {
    shelf: &'a Shelf,
    owner: &'a str,
    is_online: bool,
    stop: &'a AtomicBool,
    /// What it names.
    names: BTreeSet<String>,
    /// Made when there is something to ask.
    http: Option<Http>,
    /// What each server took.
    passes: BTreeMap<String, Pass>,
}

/// One file, and where it is.
struct Wanted<'a> {
    digest: Digest,
    url: &'a Url,
    accept: &'a str,
    bytes_max: u64,
    /// What bounds it, for people.
    setting: &'a str,
}

impl<'a> Round<'a> {
    pub(super) fn new(shelf: &'a Shelf, owner: &'a str, is_online: bool, stop: &'a AtomicBool) -> Self {
        Self { shelf, owner, is_online, stop, names: BTreeSet::new(), http: None, passes: BTreeMap::new() }
    }

    pub(super) async fn files(mut self, origins: &[&Origin]) -> Result<Vec<Origin>, (usize, Error)> {
        let mut files = Vec::new();
        for (index, &origin) in origins.iter().enumerate() {
            let Some(remote) = &origin.remote else {
                files.push(origin.clone());
                continue;
            };
            let deadline = self.shelf.config.deadline;
            let stop = self.stop;
            let fetched = tokio::select! {
                fetched = timeout(deadline, self.file(origin, remote)) => fetched.unwrap_or_else(|_| {
                    Err(Failure::MayPass(format!("it took longer than {deadline:?}: look after the server, or raise `deadline` in [modules.fetch]")))
                }),
                () = until(stop) => Err(Failure::MayPass("the agent stops".to_owned())),
            };
            files.push(fetched.map_err(|failure| (index, self.error(origin, failure)))?);
        }
        lock(&self.shelf.named).insert(self.owner.to_owned(), self.names);
        Ok(files)
    }

    fn error(&self, origin: &Origin, failure: Failure) -> Error {
        if self.is_online {
            self.shelf.metrics.failures.inc();
        }
        match failure {
            Failure::MayPass(reason) | Failure::Lasts(reason) => failed(origin, &reason),
            Failure::Wrong(found) => {
                let (file, expected) = (origin.file.clone(), origin.digest.unwrap_or(found));
                Error::WrongDigest { file, expected, found }
            }
        }
    }

    async fn file(&mut self, origin: &Origin, remote: &Remote) -> Result<Origin, Failure> {
        let not_pinned = || Failure::Lasts("it is not pinned: add its `digest`".to_owned());
        let (digest, url, signature) = match &remote.place {
            Place::Https(url) => (origin.digest.ok_or_else(not_pinned)?, url.clone(), None),
            Place::Oci { repository, manifest } => {
                let manifest = self.manifest(repository, *manifest).await?;
                let found =
                    manifest.module().map_err(|words| Failure::Lasts(format!("of its manifest: {words}")))?;
                if origin.digest.is_some_and(|expected| expected != found) {
                    return Err(Failure::Wrong(found));
                }
                let signature = manifest.signature().map(str::to_owned);
                (found, join(repository, &format!("blobs/{found}"))?, Some(signature))
            }
        };
        let (bytes_max, setting) = (self.shelf.config.bytes_max, ", `bytes_max` in [modules.fetch]");
        let wanted = Wanted { digest, url: &url, accept: "*/*", bytes_max, setting };
        let mut file = self.get(&wanted).await?;
        if !self.shelf.keys.is_empty() {
            file = self.signed(file, digest, &url, signature).await?;
        }
        Ok(Origin { file, remote: origin.remote.clone(), digest: Some(digest) })
    }

    async fn manifest(&mut self, repository: &Url, digest: Digest) -> Result<Manifest, Failure> {
        let url = join(repository, &format!("manifests/{digest}"))?;
        let wanted =
            Wanted { digest, url: &url, accept: MANIFEST, bytes_max: MANIFEST_BYTES_MAX, setting: "" };
        let file = self.get(&wanted).await?;
        let bytes = fs::read(&file).map_err(|error| lasts(&error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Lasts(format!("{url} is no manifest: {error}")))
    }

    /// The file with its signature beside it, if there is one; whether that is good is judged at each load.
    async fn signed(
        &mut self,
        file: PathBuf,
        digest: Digest,
        url: &Url,
        of_manifest: Option<Option<String>>,
    ) -> Result<PathBuf, Failure> {
        let bytes = fs::read(&file).map_err(|error| lasts(&error))?;
        if precompiled::is(&bytes) || trust::is_signed(&file, &bytes, &self.shelf.keys) || !self.is_online {
            return Ok(file);
        }
        let signature = match of_manifest {
            Some(signature) => signature.map(String::into_bytes),
            None => self.signature(url).await?,
        };
        let Some(signature) = signature else { return Ok(file) };
        let name = hex(&digest.0);
        let here = self.shelf.folder.join(&name);
        if here != file {
            self.keep(&name, &bytes)?;
        }
        self.keep(&format!("{name}.sig"), &signature)?;
        Ok(here)
    }

    /// `<url>.sig`.
    async fn signature(&mut self, url: &Url) -> Result<Option<Vec<u8>>, Failure> {
        let mut beside = url.clone();
        beside.set_path(&format!("{}.sig", url.path()));
        let mut signature = Vec::new();
        let take = |chunk: &[u8]| {
            signature.extend_from_slice(chunk);
            Ok(())
        };
        match self.ask(&beside, "*/*", (SIGNATURE_BYTES_MAX, ""), take).await {
            Ok(()) => Ok(Some(signature)),
            Err(Failure::Lasts(reason)) => {
                warn!(url = %beside, reason, "failed to fetch the signature");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let unfinished = self.shelf.begin(name).and_then(|mut unfinished| {
            unfinished.write(bytes)?;
            unfinished.finish()
        });
        unfinished.map_err(|error| lasts(&error))
    }

    /// The file, which is here then.
    async fn get(&mut self, wanted: &Wanted<'_>) -> Result<PathBuf, Failure> {
        let name = hex(&wanted.digest.0);
        let _turn = loop {
            match self.shelf.turn(&name) {
                Some(turn) => break turn,
                None => sleep(LOOK_EVERY).await,
            }
        };
        self.names.insert(name.clone());
        lock(&self.shelf.named).entry(self.owner.to_owned()).or_default().insert(name.clone());
        if let Some(file) = self.shelf.find(&name, wanted.digest) {
            return Ok(file);
        }
        if !self.is_online {
            return Err(Failure::Lasts(NOT_HERE.to_owned()));
        }
        let mut tries = 1;
        loop {
            match self.download(wanted, &name).await {
                Err(Failure::MayPass(words)) if tries < TRIES_MAX => {
                    self.shelf.metrics.repeated_requests.inc();
                    let wait = RETRY_AFTER * (1 << (tries - 1));
                    warn!(url = %wanted.url, reason = words, "failed to fetch, trying again");
                    sleep(wait / 2 + (wait / 2).mul_f64(fastrand::f64())).await;
                    tries += 1;
                }
                Err(failure) => return Err(failure),
                Ok(()) => return Ok(self.shelf.folder.join(&name)),
            }
        }
    }

    async fn download(&mut self, wanted: &Wanted<'_>, name: &str) -> Result<(), Failure> {
        let mut unfinished = self.shelf.begin(name).map_err(|error| lasts(&error))?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let take = |chunk: &[u8]| {
            hash.update(chunk);
            bytes += chunk.len() as u64;
            unfinished.write(chunk)
        };
        self.ask(wanted.url, wanted.accept, (wanted.bytes_max, wanted.setting), take).await?;
        let (url, expected, found) = (wanted.url, wanted.digest, Digest(hash.finalize().into()));
        if found != expected {
            let words = format!("{url} answers with something else: expected {expected}, found {found}");
            return Err(Failure::Lasts(words));
        }
        self.shelf.make_room(bytes)?;
        unfinished.finish().map_err(|error| lasts(&error))?;
        self.shelf.metrics.files.inc();
        self.shelf.metrics.bytes.inc_by(bytes);
        info!(%url, bytes, pipeline = self.owner, "fetched");
        Ok(())
    }

    /// One request, and what it takes to be let in.
    async fn ask(
        &mut self,
        url: &Url,
        accept: &str,
        (bytes_max, setting): (u64, &str),
        take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let config = &self.shelf.config;
        let http = match &mut self.http {
            Some(http) => http,
            none => none.insert(Http::new(config.ca.clone())?),
        };
        let server = url.authority().to_owned();
        let pass = self.passes.entry(server).or_insert(Pass::None);
        let body: Body = registry::get(http, url, accept, config, pass).await?;
        body.read(bytes_max, setting, take).await
    }
}

async fn until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20)).await;
    }
}

fn join(base: &Url, path: &str) -> Result<Url, Failure> {
    base.join(path).map_err(|error| Failure::Lasts(error.to_string()))
}

fn lasts(error: &std::io::Error) -> Failure {
    Failure::Lasts(error.to_string())
}
