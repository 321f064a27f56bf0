//! The archive: a study out, a report in.

use std::time::{Duration, Instant};

use serde_json::Value;
use synovia_images::{Login, Server, ServerError, Source, is_uid};

use crate::identity::Identity;
use crate::report::{self, Said, Stored};

/// Bytes of an answer about one study.
const MAX_JSON_BYTES: u64 = 4 << 20;
/// What separates the parts of a request; no report has it.
const BOUNDARY: &str = "synovia-structured-report";

/// Why the archive does not do what it is asked for. No text holds a UID or what is known of a patient.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What is no UID.
    #[error("no Study Instance UID: it is digits and points, such as 1.2.840.113619.2.1, and at most 64 of them")]
    NoUid,
    /// An archive without this study.
    #[error("the archive has no study of this UID")]
    NoStudy,
    /// An archive that does not serve.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A report that can't be written.
    #[error("the report can't be written: {0}")]
    Report(String),
}

/// An image archive with a DICOMweb service.
#[derive(Clone, Debug)]
pub struct Archive {
    server: Server,
    login: Login,
    agent: ureq::Agent,
    within: Duration,
}

impl Archive {
    /// By the address of its DICOMweb service; all that is asked of it for one request takes at most `within`.
    ///
    /// # Errors
    /// An address that is none, or that holds a password.
    pub fn new(url: &str, login: Login, within: Duration) -> Result<Self, ServerError> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // An archive does not lead anywhere else.
            .max_redirects(0)
            .timeout_connect(Some(within.min(Duration::from_secs(5))))
            .user_agent(concat!("synovia/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { server: Server::new(url, login.clone(), Vec::new())?, login, agent, within })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// One study, to take images from.
    ///
    /// # Errors
    /// What is no UID.
    pub fn study(&self, uid: &str) -> Result<Source, ArchiveError> {
        if !is_uid(uid) {
            return Err(ArchiveError::NoUid);
        }
        Ok(Source::server(self.server.clone().of_study(uid).until(Instant::now() + self.within)))
    }

    /// Stores what is said of a study beside its images: an Enhanced SR, which is the same instance each time that the same is said.
    ///
    /// # Errors
    /// An archive that has no such study, does not answer, or does not take the report.
    pub fn store(&self, uid: &str, said: &Said<'_>) -> Result<Stored, ArchiveError> {
        if !is_uid(uid) {
            return Err(ArchiveError::NoUid);
        }
        let until = Instant::now() + self.within;
        let identity = self.identity(uid, until)?;
        let (stored, bytes) = report::of(&identity, said)?;
        let mut body = format!("--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
        body.extend_from_slice(&bytes);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let request = self.agent.post(format!("{}/studies", self.url())).config().timeout_global(Some(left(until))).build();
        let content_type = format!("multipart/related; type=\"application/dicom\"; boundary={BOUNDARY}");
        let request = self.with_login(request.header("Content-Type", content_type).header("Accept", "application/dicom+json"));
        let answer = self.read(request.send(&body[..]))?;
        // Instances that are stored (Referenced SOP Sequence, PS3.18 annex I).
        let is_stored = answer["00081199"]["Value"]
            .as_array()
            .is_some_and(|items| items.iter().any(|item| item["00081155"]["Value"][0].as_str() == Some(stored.sop_instance_uid.as_str())));
        if is_stored { Ok(stored) } else { Err(self.error("does not say that it has stored the report").into()) }
    }

    /// Whose study it is, by the archive's word.
    fn identity(&self, uid: &str, until: Instant) -> Result<Identity, ArchiveError> {
        let url = format!("{}/studies?StudyInstanceUID={uid}&includefield=StudyDescription", self.url());
        let request = self.agent.get(url).config().timeout_global(Some(left(until))).build();
        let answer = self.read(self.with_login(request.header("Accept", "application/dicom+json")).call())?;
        answer.as_array().into_iter().flatten().find_map(|study| Identity::of(study, uid)).ok_or(ArchiveError::NoStudy)
    }

    fn with_login<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match self.login.header() {
            Some(login) => request.header("Authorization", login),
            None => request,
        }
    }

    fn read(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, ServerError> {
        let mut response = response.map_err(|error| ServerError::unanswered(self.url(), &error))?;
        match response.status().as_u16() {
            200 | 202 => {
                let text = response.body_mut().with_config().limit(MAX_JSON_BYTES).read_to_vec();
                let text = text.map_err(|_| self.error("ends its answer before its end"))?;
                serde_json::from_slice(&text).map_err(|_| self.error("does not answer in JSON"))
            }
            204 => Ok(Value::Null),
            status @ (401 | 403) => Err(self.error(format!("refuses access ({status}); check the login that the server was started with"))),
            status @ 300..=399 => Err(self.error(format!("leads elsewhere ({status}); give the address that it leads to"))),
            status => Err(self.error(format!("answers {status}"))),
        }
    }

    fn error(&self, what: impl Into<String>) -> ServerError {
        ServerError { url: self.url().to_owned(), what: what.into() }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}
