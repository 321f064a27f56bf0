//! A DICOMweb server (PS3.18): QIDO-RS to find studies and their series, WADO-RS for the metadata of instances and for the one
//! instance that stands for a study.
//!
//! Pixels of other instances never travel. What was brought of a study stays in the folder of copies, in a file that is there
//! whole or not at all, so that a run that was killed goes on after it.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synovia_cohort::{Rejected, RejectedLog, Study};

use super::copies::{Copier, each_file, hex, name_of, write_whole};
use super::multipart::first_part;
use super::{MAX_FILE_BYTES, Places};
use crate::deidentify::is_uid;
use crate::dicom::{self, read_json};
use crate::error::{Fault, ImagesError};
use crate::scan::{Gathered, ImageKind, ScanCounts, Selection};

/// Raised when the same server gives other copies.
const FORMAT: u32 = 2;
/// Entries that are asked for at once.
const PAGE: usize = 100;
/// Bytes of one answer in JSON: the metadata of a series of ten thousand instances take a fifth of it.
const MAX_JSON_BYTES: u64 = 256 << 20;
const ATTEMPTS: u32 = 5;
/// Studies that are asked for together.
const BATCH: usize = 8;
/// Studies in a row that fail before the server is given up.
const MAX_FAILURES: usize = 16;

/// How to log in.
#[derive(Clone, Default)]
pub enum Login {
    /// Not at all.
    #[default]
    None,
    /// By name and password (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token (RFC 6750).
    Bearer(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

impl Login {
    /// `Authorization`, where there is something to show.
    pub fn header(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Basic { user, password } => Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))),
            Self::Bearer(token) => Some(format!("Bearer {token}")),
        }
    }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, k| bits << 8 | chunk.get(k).map_or(0, |&byte| u32::from(byte)));
        let digit = move |k: usize| char::from(DIGITS[(bits >> (18 - 6 * k)) as usize & 63]);
        let n = chunk.len();
        (0..4).map(move |k| if k <= n { digit(k) } else { '=' })
    };
    bytes.chunks(3).flat_map(group).collect()
}

/// A DICOMweb server that does not give what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {what}")]
pub struct ServerError {
    /// The service's address.
    pub url: String,
    /// What it did, and what to do.
    pub what: String,
}

impl ServerError {
    /// A server that did not answer.
    pub fn unanswered(url: &str, error: &ureq::Error) -> Self {
        let what = format!("does not answer ({}); is the address right, and the server up?", kind_of(error));
        Self { url: url.to_owned(), what }
    }
}

/// A DICOMweb service.
#[derive(Clone)]
pub struct Server {
    url: String,
    login: Login,
    query: Vec<String>,
    agent: ureq::Agent,
    first_delay: Duration,
    until: Option<Instant>,
    only: Option<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).field("login", &self.login).field("query", &self.query).finish_non_exhaustive()
    }
}

/// What a request came to.
enum Failed {
    /// The server as a whole does not serve.
    Server(ServerError),
    /// It does not give this one thing.
    This(String),
}

/// What is kept of a study.
#[derive(Serialize, Deserialize)]
struct Brought {
    /// Of the service and of what is selected.
    key: String,
    /// Instances that the server said the study has.
    n_instances: u64,
    n_files: u64,
    n_images: u64,
    study: Option<Study>,
    rejected: Vec<Rejected>,
}

impl Server {
    /// A service by its address, such as `https://pacs.example/dicom-web`, of which the studies are taken that match `query`:
    /// matching keys of QIDO-RS, such as `ModalitiesInStudy=CT`.
    ///
    /// # Errors
    /// An address that is none, or that holds a password.
    pub fn new(url: &str, login: Login, query: Vec<String>) -> Result<Self, ServerError> {
        let failed = |url: &str, what: &str| ServerError { url: url.to_owned(), what: what.to_owned() };
        let url = url.trim_end_matches('/');
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.map_or("", |rest| rest.split('/').next().unwrap_or_default());
        if host.contains('@') {
            return Err(failed("the address of the server", "holds a login; name environment variables that hold it instead"));
        }
        if host.is_empty() || url.contains(['?', '#', ' ']) {
            return Err(failed(url, "is no address of a DICOMweb service; give one such as https://pacs.example/dicom-web"));
        }
        let sound = |key: &String| key.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !key.contains(['&', '#', ' ']);
        if let Some(key) = query.iter().find(|key| !sound(key)) {
            return Err(failed(url, &format!("`{key}` is no matching key; give one such as ModalitiesInStudy=CT")));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A server that leads elsewhere would lead this machine to where its network alone may go.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_mins(5)))
            .timeout_per_read(Some(Duration::from_mins(2)))
            .user_agent(concat!("synovia/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { url: url.to_owned(), login, query, agent, first_delay: Duration::from_millis(500), until: None, only: None })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same, with another time until a request is made again for the first time. It doubles with each.
    #[cfg(test)]
    pub(crate) fn with_delay(self, first_delay: Duration) -> Self {
        Self { first_delay, ..self }
    }

    /// The same, for one study alone. What else the server gives, as one does that knows no such key, is left.
    #[must_use]
    pub fn of_study(self, uid: &str) -> Self {
        Self { query: vec![format!("StudyInstanceUID={uid}")], only: Some(uid.to_owned()), ..self }
    }

    /// The same, that gives up at a moment.
    #[must_use]
    pub fn until(self, until: Instant) -> Self {
        Self { until: Some(until), ..self }
    }

    fn error(&self, what: impl Into<String>) -> ServerError {
        ServerError { url: self.url.clone(), what: what.into() }
    }

    /// Makes a request, again and again while that can help, and gives the answer to `read`; `None` where there is no content.
    fn get<T>(&self, path: &str, accept: &str, read: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<T>) -> Result<Option<T>, Failed> {
        let mut delay = self.first_delay;
        for attempt in 1.. {
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            let request = self.agent.get(format!("{}/{path}", self.url)).config().timeout_global(left).build();
            let mut request = request.header("Accept", accept);
            if let Some(login) = self.login.header() {
                request = request.header("Authorization", login);
            }
            let mut wait = delay;
            let failed = match request.call() {
                Err(error) => Failed::Server(ServerError::unanswered(&self.url, &error)),
                Ok(mut response) => {
                    let text = |response: &ureq::http::Response<ureq::Body>, name: &str| {
                        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
                    };
                    match response.status().as_u16() {
                        200 | 206 => {
                            let content_type = text(&response, "content-type");
                            match read(&content_type, &mut response.body_mut().with_config().limit(u64::MAX).reader()) {
                                Ok(value) => return Ok(Some(value)),
                                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                                    return Err(Failed::Server(self.error(format!("what it sent cannot be put aside: {}", error.kind()))));
                                }
                                Err(error) => {
                                    Failed::This(format!("the answer is cut off or not of the form that was asked for ({})", error.kind()))
                                }
                            }
                        }
                        204 => return Ok(None),
                        status @ (401 | 403) => {
                            let what = match self.login {
                                Login::None => {
                                    "without a login; name the environment variables that hold one, as user_variable and password_variable, or token_variable, in [images]"
                                }
                                _ => "with the login that was given; check what the environment variables hold",
                            };
                            return Err(Failed::Server(self.error(format!("refuses access ({status}) {what}"))));
                        }
                        status @ (408 | 429 | 500..=599) => {
                            if let Ok(seconds) = text(&response, "retry-after").parse::<u64>() {
                                wait = wait.max(Duration::from_secs(seconds.min(60)));
                            }
                            Failed::This(format!("the server fails ({status})"))
                        }
                        status @ 300..=399 => {
                            return Err(Failed::Server(
                                self.error(format!("leads elsewhere ({status}); give the address that it leads to")),
                            ));
                        }
                        status => return Err(Failed::This(format!("the server answers {status}"))),
                    }
                }
            };
            if attempt == ATTEMPTS || self.until.is_some_and(|until| Instant::now() + wait >= until) {
                return Err(failed);
            }
            std::thread::sleep(wait);
            delay *= 2;
        }
        unreachable!("the attempts are counted")
    }

    /// Pages of a search, to the end: study, series, and how many instances, of each entry.
    fn search(&self, path: &str, take: &mut dyn FnMut([String; 3])) -> Result<(), Failed> {
        let (mut offset, mut first) = (0, None);
        let named = [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID, tags::NUMBER_OF_STUDY_RELATED_INSTANCES];
        loop {
            let between = if path.contains('?') { '&' } else { '?' };
            let page = format!("{path}{between}limit={PAGE}&offset={offset}");
            let entries = self.json(&page, &named, &|entry| named.map(|tag| entry.text(tag)))?;
            let start = entries.first().cloned();
            // Some servers know no pages and give all each time.
            if start.is_none() || start == first {
                return Ok(());
            }
            first = start;
            offset += entries.len();
            entries.into_iter().for_each(&mut *take);
        }
    }

    /// What `of` makes of each object of an answer.
    fn json<T>(&self, path: &str, more: &[Tag], of: &dyn Fn(dicom::Entry) -> T) -> Result<Vec<T>, Failed> {
        let read = &mut |_: &str, body: &mut dyn Read| {
            let mut made = Vec::new();
            read_json(BufReader::new(body.take(MAX_JSON_BYTES)), more, &mut |entry| made.push(of(entry)))?;
            Ok(made)
        };
        Ok(self.get(path, "application/dicom+json", read)?.unwrap_or_default())
    }

    /// UIDs of the studies that match, in order, and how many instances each has by the server's word.
    fn studies(&self) -> Result<Vec<(String, u64)>, ServerError> {
        let keys = [&self.query[..], &["includefield=NumberOfStudyRelatedInstances".to_owned()]].concat().join("&");
        let path = format!("studies?{keys}");
        let mut studies = Vec::new();
        let result = self.search(&path, &mut |[uid, _, n]| {
            if is_uid(&uid) && self.only.as_ref().is_none_or(|only| *only == uid) {
                studies.push((uid, n.parse().unwrap_or(0)));
            }
        });
        result.map_err(|failed| match failed {
            Failed::Server(error) => error,
            Failed::This(what) => {
                self.error(format!("{what} when it is asked for its studies; is this the address of its DICOMweb service?"))
            }
        })?;
        studies.sort_unstable();
        studies.dedup();
        Ok(studies)
    }

    /// A digest of what the server holds.
    pub(super) fn state(&self) -> Result<String, ImagesError> {
        let mut hash = Sha256::new();
        for (uid, n) in self.studies()? {
            hash.update(format!("{uid} {n}\n"));
        }
        Ok(hex(&hash.finalize()))
    }

    pub(super) fn scan_into(
        &self,
        kind: ImageKind,
        selection: &Selection,
        places: Places<'_>,
        rejected: &RejectedLog,
        progress: &(dyn Fn(u64) + Sync),
        take: &mut dyn FnMut(Study) -> io::Result<()>,
    ) -> Result<ScanCounts, ImagesError> {
        if kind != ImageKind::Dicom {
            return Err(self.error("a DICOMweb server has DICOM only; write kind = \"dicom\"").into());
        }
        let scratched = |source| ImagesError::Scratch { path: places.copies.to_owned(), source };
        std::fs::create_dir_all(places.copies).map_err(scratched)?;
        let copier = Copier::new(kind, selection).map_err(scratched)?;
        let key = serde_json::to_vec(&(FORMAT, &self.url, selection)).map_err(|error| scratched(error.into()))?;
        let key = hex(&Sha256::digest(key));
        let mut counts = ScanCounts::default();
        let mut failures = 0;
        for batch in self.studies()?.chunks(BATCH) {
            let bring = |(uid, n): &(String, u64)| self.bring(uid, *n, &key, selection, places, &copier);
            let brought: Vec<Result<Brought, Failed>> = batch.par_iter().map(bring).collect();
            for (result, (uid, _)) in brought.into_iter().zip(batch) {
                match result {
                    Err(Failed::Server(error)) => return Err(error.into()),
                    Err(Failed::This(what)) => {
                        failures += 1;
                        if failures > MAX_FAILURES {
                            return Err(self
                                .error(format!(
                                    "{what}, for {failures} studies in a row; run again when it serves, and it goes on from here"
                                ))
                                .into());
                        }
                        rejected.push(&Fault::Web(what).into_rejected(uid));
                    }
                    Ok(brought) => {
                        failures = 0;
                        brought.rejected.iter().for_each(|rejection| rejected.push(rejection));
                        counts.n_files += brought.n_files;
                        counts.n_images += brought.n_images;
                        if let Some(study) = brought.study {
                            counts.n_studies += 1;
                            take(study).map_err(scratched)?;
                        }
                    }
                }
            }
            progress(counts.n_files);
        }
        Ok(counts)
    }

    /// A study's metadata and its one image, from the folder of copies where they are there already.
    fn bring(
        &self,
        uid: &str,
        n_instances: u64,
        key: &str,
        selection: &Selection,
        places: Places<'_>,
        copier: &Copier,
    ) -> Result<Brought, Failed> {
        let record = places.copies.join(format!("{}.json", name_of(uid)));
        let known = std::fs::read(&record).ok().and_then(|bytes| serde_json::from_slice::<Brought>(&bytes).ok());
        let is_there = |file: &String| places.copies.join(file).is_file();
        let whole = |known: &Brought| {
            known.study.as_ref().is_none_or(|study| is_there(&study.file) && study.slices.iter().all(|(file, _)| is_there(file)))
        };
        if let Some(known) = known.filter(|known| known.key == key && known.n_instances == n_instances && whole(known)) {
            return Ok(known);
        }
        let failed = |error: io::Error| {
            Failed::Server(self.error(format!("what it sent cannot be put aside in {}: {}", places.copies.display(), error.kind())))
        };
        let kept = Kept::default();
        let log = RejectedLog::to_writer(Box::new(kept.clone()));
        let mut gathered = Gathered::new(ImageKind::Dicom, selection, places.scratch, &log);
        let mut series = Vec::new();
        self.search(&format!("studies/{uid}/series"), &mut |[_, uid, _]| series.push(uid))?;
        for series in series.iter().filter(|series| is_uid(series)) {
            let of = |entry: dicom::Entry| {
                let instance = entry.instance().and_then(|instance| selection.check(&instance).map(|()| instance));
                (instance, format!("{uid}/{series}/{}", entry.text(tags::SOP_INSTANCE_UID)))
            };
            for (instance, file) in self.json(&format!("studies/{uid}/series/{series}/metadata"), &[], &of)? {
                gathered.take(instance, file).map_err(failed)?;
            }
        }
        let mut chosen = None;
        let counts = gathered.studies(&mut |study| {
            if study.study_instance_uid == uid {
                chosen = Some(study);
            }
            Ok(())
        });
        let counts = counts.map_err(failed)?;
        let mut brought = Brought {
            key: key.to_owned(),
            n_instances,
            n_files: counts.n_files,
            n_images: counts.n_images,
            study: None,
            rejected: Vec::new(),
        };
        if let Some(mut study) = chosen {
            let file = study.file.clone();
            let fetched = each_file(&mut study, &mut |instance, name| {
                let name = format!("{name}.dcm");
                match self.image(instance, &places.copies.join(&name), places.scratch, copier) {
                    Ok(Ok(())) => Ok(name),
                    Ok(Err(fault)) => Err(Ok(fault)),
                    Err(failed) => Err(Err(failed)),
                }
            });
            match fetched {
                Ok(()) => brought.study = Some(study),
                Err(Err(error)) => return Err(error),
                Err(Ok(Fault::Io(error))) => return Err(failed(error)),
                Err(Ok(fault)) => log.push(&fault.into_rejected(&file)),
            }
        }
        log.finish().map_err(failed)?;
        brought.rejected = kept.rejected();
        let text = serde_json::to_vec(&brought).map_err(|error| failed(error.into()))?;
        write_whole(&record, &text).map_err(failed)?;
        Ok(brought)
    }

    /// Copies an instance, `STUDY/SERIES/INSTANCE`, to `to`.
    fn image(&self, instance: &str, to: &Path, scratch: &Path, copier: &Copier) -> Result<Result<(), Fault>, Failed> {
        let parts: Vec<&str> = instance.split('/').collect();
        let [study, series, uid] = parts[..] else { return Ok(Err(Fault::Web("an instance without a UID".to_owned()))) };
        if !is_uid(uid) {
            return Ok(Err(Fault::Web("an instance without a UID".to_owned())));
        }
        let mut file = match tempfile::NamedTempFile::new_in(scratch) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error.into())),
        };
        // Without the star a server transcodes what it holds.
        let accept = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
        let read = &mut |content_type: &str, body: &mut dyn Read| {
            let out = file.as_file_mut();
            out.set_len(0)?;
            io::Seek::rewind(out)?;
            first_part(content_type, BufReader::new(body), out, MAX_FILE_BYTES)
        };
        if self.get(&format!("studies/{study}/series/{series}/instances/{uid}"), accept, read)?.is_none() {
            return Ok(Err(Fault::Web("it lists an instance and has none".to_owned())));
        }
        Ok(dicom::index_file(file.path()).and_then(|_| copier.copy(file.path(), to)))
    }
}

/// In words that hold no address: a host may be named in a message.
fn kind_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Timeout(_) => "it takes too long".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        ureq::Error::Tls(what) => (*what).to_owned(),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        other => other.to_string(),
    }
}

/// Rejections of one study.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn rejected(&self) -> Vec<Rejected> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
