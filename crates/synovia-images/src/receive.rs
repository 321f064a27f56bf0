//! A C-STORE receiver (PS3.4 annex B, PS3.7 §9.1.1): what other systems send becomes files in a folder.
//!
//! A file is there whole or not at all: it is written in a folder beside, and moved when its last byte is on the disk. Pixels are
//! not touched, in whatever transfer syntax they come. The size of a message unit, the number of associations and the size of an
//! instance are bounded, and nothing of an instance is held in memory.

use std::io::{self, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dicom_ul::Pdu;
use dicom_ul::association::CloseSocket;
use dicom_ul::association::server::{AccessControl, ServerAssociation, ServerAssociationOptions};
use dicom_ul::pdu::{AssociationRJServiceUserReason, PDataValue, PDataValueType, PresentationContextResultReason, UserIdentity};
use rustls::ServerConfig;

use crate::deidentify::{file_head, is_uid};
use crate::dicom;
use crate::error::Fault;

/// Bytes of a message unit that are taken.
const MAX_PDU_BYTES: u32 = 128 << 10;
/// Bytes of a command set: a few hundred are usual.
const MAX_COMMAND_BYTES: usize = 16 << 10;
/// Bytes of an instance.
const MAX_INSTANCE_BYTES: u64 = 4 << 30;
/// How long a peer may be silent.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long it may take to begin.
const GREETING_PATIENCE: Duration = Duration::from_secs(15);

/// How instances are received.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Folder that is written, as `STUDY/SERIES/INSTANCE.dcm`. Beside it a folder of the same name with `.partial` holds what is
    /// not whole yet.
    pub folder: PathBuf,
    /// Application entity title that peers have to call; any when empty.
    pub title: String,
    /// Associations at a time; peers that come then are told to try again, or over TLS are not answered.
    pub max_associations: usize,
    /// Associations are over TLS (PS3.15 §B.12), by this; in the clear without it.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reception {
    /// An instance is in the folder, as this file.
    Stored(PathBuf),
    /// An instance or an association was refused, or broke off.
    Failed(String),
}

impl Receiver {
    /// Takes associations for ever, each in a thread of its own. `report` is called from those threads.
    ///
    /// # Errors
    /// The folders cannot be made.
    pub fn run(&self, listener: &TcpListener, report: &(dyn Fn(Reception) + Sync)) -> io::Result<()> {
        let partial = self.partial();
        // What a run that was killed left half-written.
        if partial.exists() {
            std::fs::remove_dir_all(&partial)?;
        }
        std::fs::create_dir_all(&self.folder)?;
        std::fs::create_dir_all(&partial)?;
        let open = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            loop {
                match listener.accept() {
                    // One that could not be accepted, for want of handles or because the peer went away, is the peer's to repeat.
                    Err(error) => {
                        report(Reception::Failed(format!("a connection: {}", error.kind())));
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    Ok((mut socket, _)) => {
                        if open.fetch_add(1, Ordering::AcqRel) >= self.max_associations {
                            open.fetch_sub(1, Ordering::AcqRel);
                            // A-ASSOCIATE-RJ (PS3.8 §9.3.4): for now, by the presentation layer, local limit exceeded.
                            if self.tls.is_none() {
                                let _ = socket.write_all(&[3, 0, 0, 0, 0, 4, 0, 2, 3, 2]);
                            }
                            report(Reception::Failed("an association over the limit".to_owned()));
                            continue;
                        }
                        let (open, partial) = (&open, &partial);
                        scope.spawn(move || {
                            if let Err(what) = self.associate(socket, partial, report) {
                                report(Reception::Failed(what));
                            }
                            open.fetch_sub(1, Ordering::AcqRel);
                        });
                    }
                }
            }
        })
    }

    fn partial(&self) -> PathBuf {
        let mut name = self.folder.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        self.folder.with_file_name(name)
    }

    fn associate(&self, socket: TcpStream, partial: &Path, report: &(dyn Fn(Reception) + Sync)) -> Result<(), String> {
        let mut options = ServerAssociationOptions::new()
            .ae_access_control(Titles(&self.title))
            .ae_title(if self.title.is_empty() { "SYNOVIA" } else { &self.title })
            .max_pdu_length(MAX_PDU_BYTES)
            .strict(true)
            .promiscuous(true)
            .read_timeout(PATIENCE)
            .write_timeout(PATIENCE);
        for syntax in dicom::syntax_uids() {
            options = options.with_transfer_syntax(syntax);
        }
        // Requests and answers are small and wait for each other.
        let _ = socket.set_nodelay(true);
        // Errors of the library may hold what the peer sent.
        let not_agreed = |_| "an association that was not agreed on".to_owned();
        begins(&socket, self.tls.is_some(), GREETING_PATIENCE).map_err(|_| "a connection that begins with no association".to_owned())?;
        match &self.tls {
            None => {
                let association = in_time(socket, |socket| options.establish(socket)).map_err(not_agreed)?;
                self.converse(association, partial, report)
            }
            Some(tls) => {
                let options = options.tls_config(Arc::clone(tls));
                let association = in_time(socket, |socket| options.establish_tls(socket)).map_err(not_agreed)?;
                self.converse(association, partial, report)
            }
        }
    }

    fn converse<S: Read + Write + CloseSocket>(
        &self,
        mut association: ServerAssociation<S>,
        partial: &Path,
        report: &(dyn Fn(Reception) + Sync),
    ) -> Result<(), String> {
        let mut message = Message::default();
        loop {
            match association.receive() {
                Ok(Pdu::PData { data }) => {
                    for value in data {
                        self.take(&mut association, &mut message, &value, partial, report)?;
                    }
                }
                Ok(Pdu::ReleaseRQ) => {
                    return association.send(&Pdu::ReleaseRP).map_err(|_| "an association that broke off at its end".to_owned());
                }
                Ok(Pdu::AbortRQ { .. }) => return Err("an association that the peer aborted".to_owned()),
                Ok(_) => return Err("an association with a message unit that has no place in it".to_owned()),
                Err(_) => return Err("an association that broke off".to_owned()),
            }
        }
    }

    fn take<S: Read + Write + CloseSocket>(
        &self,
        association: &mut ServerAssociation<S>,
        message: &mut Message,
        value: &PDataValue,
        partial: &Path,
        report: &(dyn Fn(Reception) + Sync),
    ) -> Result<(), String> {
        if value.value_type == PDataValueType::Command {
            message.command.extend_from_slice(&value.data);
            if message.command.len() > MAX_COMMAND_BYTES {
                return Err("a command of more than 16 KiB".to_owned());
            }
            if !value.is_last {
                return Ok(());
            }
            let command = Command::of(&std::mem::take(&mut message.command)).ok_or("a command that cannot be read")?;
            return match (command.field, command.has_data) {
                (C_ECHO, _) => respond(association, value.presentation_context_id, &command, 0),
                (C_STORE, true) => {
                    message.begin(association, value.presentation_context_id, command, partial);
                    Ok(())
                }
                // PS3.7 §C.5.26: unrecognized operation.
                _ => respond(association, value.presentation_context_id, &command, 0x0211),
            };
        }
        let Some(incoming) = &mut message.incoming else { return Err("data without a command".to_owned()) };
        incoming.write(&value.data);
        if !value.is_last {
            return Ok(());
        }
        let Some(incoming) = message.incoming.take() else { return Ok(()) };
        let (status, reception, command) = incoming.finish(&self.folder);
        report(reception);
        respond(association, value.presentation_context_id, &command, status)
    }
}

/// What `establish` makes of a connection, which is closed when that takes too long: a peer that sends a byte now and then, and need
/// not be known for it, would keep an association from others.
fn in_time<T>(socket: TcpStream, establish: impl FnOnce(TcpStream) -> T) -> T {
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        if let Ok(watched) = socket.try_clone() {
            scope.spawn(move || {
                if waiting.recv_timeout(GREETING_PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let _ = watched.shutdown(std::net::Shutdown::Both);
                }
            });
        }
        let established = establish(socket);
        drop(done);
        established
    })
}

/// Waits for as much as tells that an association, or TLS, begins, and takes none of it. dicom-ul 0.10 looks for a TLS greeting in
/// what it could not read, and for the rest of one without end where a peer leaves within it: it is only asked to read what is there.
///
/// # Errors
/// The peer leaves, is silent for too long, or begins with something else.
fn begins(socket: &TcpStream, is_tls: bool, patience: Duration) -> io::Result<()> {
    socket.set_read_timeout(Some(patience))?;
    let deadline = Instant::now() + patience;
    let mut bytes = vec![0; 6];
    loop {
        let n = socket.peek(&mut bytes)?;
        if n == 0 || bytes[0] != if is_tls { HANDSHAKE } else { ASSOCIATE_RQ } {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if n == bytes.len() {
            // The client's greeting in one record (RFC 8446 §5.1, §4.1.2) of at most 16 KiB.
            let length = if is_tls { 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]])) } else { n };
            match n {
                _ if length > MAX_GREETING_BYTES => return Err(io::ErrorKind::InvalidData.into()),
                n if n < length => bytes.resize(length, 0),
                _ => {
                    let message = bytes.get(6..9).map_or(0, |size| u32::from_be_bytes([0, size[0], size[1], size[2]]) as usize);
                    let is_whole = !is_tls || (bytes[5] == CLIENT_HELLO && 9 + message <= length);
                    return if is_whole { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
                }
            }
        } else if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        } else {
            // More is on its way, or the peer has left: then this is as much as there will be.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// First byte of an A-ASSOCIATE-RQ (PS3.8 §9.3.2), of a TLS record with a handshake, and of a client's greeting in it.
const ASSOCIATE_RQ: u8 = 1;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const MAX_GREETING_BYTES: usize = 5 + (16 << 10);

/// Who may call.
struct Titles<'a>(&'a str);

impl AccessControl for Titles<'_> {
    fn check_access(&self, _: &str, _: &str, called: &str, _: Option<&UserIdentity>) -> Result<(), AssociationRJServiceUserReason> {
        let right = self.0.is_empty() || self.0.trim() == called.trim();
        if right { Ok(()) } else { Err(AssociationRJServiceUserReason::CalledAETitleNotRecognized) }
    }
}

const C_STORE: u16 = 0x0001;
const C_ECHO: u16 = 0x0030;

/// What a request says (PS3.7 §9.3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Command {
    field: u16,
    message_id: u16,
    has_data: bool,
    class: String,
    instance: String,
}

impl Command {
    /// From a command set, which is Implicit VR Little Endian.
    fn of(mut bytes: &[u8]) -> Option<Self> {
        let mut command = Self::default();
        while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
            let (group, element) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let value = rest.get(..length)?;
            let short = || value.first_chunk().map(|pair| u16::from_le_bytes(*pair));
            let text = || String::from_utf8_lossy(value).trim_end_matches([' ', '\0']).to_owned();
            match (group, element) {
                (0, 0x0002) => command.class = text(),
                (0, 0x0100) => command.field = short()?,
                (0, 0x0110) => command.message_id = short()?,
                (0, 0x0800) => command.has_data = short()? != NO_DATA,
                (0, 0x1000) => command.instance = text(),
                _ => {}
            }
            bytes = &rest[length..];
        }
        bytes.is_empty().then_some(command)
    }

    /// The response's command set.
    fn response(&self, status: u16) -> Vec<u8> {
        let mut body = Vec::new();
        let mut element = |element: u16, value: &[u8]| {
            body.extend([0, 0]);
            body.extend(element.to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend(value);
        };
        let even = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(bytes.len().next_multiple_of(2), 0);
            bytes
        };
        element(0x0002, &even(&self.class));
        element(0x0100, &(self.field | 0x8000).to_le_bytes());
        element(0x0120, &self.message_id.to_le_bytes());
        element(0x0800, &NO_DATA.to_le_bytes());
        element(0x0900, &status.to_le_bytes());
        if !self.instance.is_empty() {
            element(0x1000, &even(&self.instance));
        }
        let mut bytes = vec![0, 0, 0, 0, 4, 0, 0, 0];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.append(&mut body);
        bytes
    }
}

/// Command Data Set Type where no data set follows.
const NO_DATA: u16 = 0x0101;

fn respond<S: Read + Write + CloseSocket>(
    association: &mut ServerAssociation<S>,
    context: u8,
    command: &Command,
    status: u16,
) -> Result<(), String> {
    let value =
        PDataValue { presentation_context_id: context, value_type: PDataValueType::Command, is_last: true, data: command.response(status) };
    association.send(&Pdu::PData { data: vec![value] }).map_err(|_| "an association that broke off before a response".to_owned())
}

/// What is being received on one association.
#[derive(Default)]
struct Message {
    command: Vec<u8>,
    incoming: Option<Incoming>,
}

impl Message {
    fn begin<S>(&mut self, association: &ServerAssociation<S>, context: u8, command: Command, partial: &Path) {
        let agreed = association.presentation_contexts().iter().find(|known| known.id == context);
        let agreed = agreed.filter(|known| known.reason == PresentationContextResultReason::Acceptance);
        let out = match agreed {
            // PS3.4 §B.2.3: SOP class not supported; PS3.7 §C.5.17: invalid object instance.
            None => Err(0x0122),
            Some(_) if !is_uid(&command.instance) || !is_uid(&command.class) => Err(0x0117),
            Some(known) => open(&command, &known.transfer_syntax, partial).map_err(|_| OUT_OF_RESOURCES),
        };
        self.incoming = Some(Incoming { command, out, n_bytes: 0 });
    }
}

fn open(command: &Command, transfer_syntax: &str, partial: &Path) -> io::Result<BufWriter<tempfile::NamedTempFile>> {
    let mut out = BufWriter::with_capacity(256 << 10, tempfile::NamedTempFile::new_in(partial)?);
    out.write_all(&file_head(&command.class, &command.instance, transfer_syntax))?;
    Ok(out)
}

const OUT_OF_RESOURCES: u16 = 0xA700;
const CANNOT_UNDERSTAND: u16 = 0xC000;

struct Incoming {
    command: Command,
    /// Or the status that is answered.
    out: Result<BufWriter<tempfile::NamedTempFile>, u16>,
    n_bytes: u64,
}

impl Incoming {
    /// What can't be written is passed over: the answer comes when all was sent.
    fn write(&mut self, data: &[u8]) {
        self.n_bytes += data.len() as u64;
        if let Ok(out) = &mut self.out
            && (self.n_bytes > MAX_INSTANCE_BYTES || out.write_all(data).is_err())
        {
            self.out = Err(OUT_OF_RESOURCES);
        }
    }

    /// The status, and what became of the instance.
    fn finish(self, folder: &Path) -> (u16, Reception, Command) {
        let failed = |status: u16, what: &str| (status, Reception::Failed(format!("an instance: {what}")));
        let (status, reception) = match self.out {
            Err(status @ OUT_OF_RESOURCES) => failed(status, "it cannot be written, or is larger than 4 GiB"),
            Err(status) => failed(status, "its class or UID is not valid"),
            Ok(out) => match keep(out, &self.command, folder) {
                Ok(path) => (0, Reception::Stored(path)),
                Err(Fault::Io(error)) => failed(OUT_OF_RESOURCES, &format!("it cannot be written: {}", error.kind())),
                Err(fault) => failed(CANNOT_UNDERSTAND, &fault.to_string()),
            },
        };
        (status, reception, self.command)
    }
}

/// Moves a whole file to its place.
fn keep(out: BufWriter<tempfile::NamedTempFile>, command: &Command, folder: &Path) -> Result<PathBuf, Fault> {
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_data()?;
    let [study, series, _] = dicom::uids_of(file.path())?;
    let part = |uid: String| if is_uid(&uid) { uid } else { "none".to_owned() };
    let relative = Path::new(&part(study)).join(part(series)).join(format!("{}.dcm", command.instance));
    let path = folder.join(&relative);
    std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let echo =
            Command { field: C_ECHO, message_id: 7, has_data: false, class: "1.2.840.10008.1.1".to_owned(), instance: String::new() };
        // A C-ECHO response as PS3.7 §9.3.5.2 lays it out; 66 bytes after the group length.
        let response = echo.response(0);
        assert_eq!(response[..12], [0, 0, 0, 0, 4, 0, 0, 0, 66, 0, 0, 0]);
        assert_eq!(response.len(), 12 + 66);
        assert_eq!(response[12..22], [0, 0, 2, 0, 18, 0, 0, 0, b'1', b'.']);
        let read = Command::of(&response).unwrap();
        assert_eq!((read.field, read.has_data, read.class.as_str()), (0x8030, false, "1.2.840.10008.1.1"));
        for cut in [1, 7, 11, 40, 77] {
            assert_eq!(Command::of(&response[..cut]), None, "{cut}");
        }
        assert_eq!(Command::of(&[0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]), None);
        assert_eq!(Command::of(&[0, 0, 0, 1, 1, 0, 0, 0, 3]), None);
    }

    #[test]
    fn beginnings() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = |bytes: &[u8], is_tls: bool, expected: bool| {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            peer.write_all(bytes).unwrap();
            drop(peer);
            let begun = begins(&socket, is_tls, Duration::from_millis(200));
            assert_eq!(begun.is_ok(), expected, "{bytes:?}: {begun:?}");
            // Nothing was taken.
            let mut left = Vec::new();
            let mut socket = socket;
            socket.read_to_end(&mut left).unwrap();
            assert_eq!(left, bytes);
        };
        let association = [1, 0, 0, 0, 0, 205, 0, 1];
        check(&association, false, true);
        check(&association, true, false);
        let hello = [[22, 3, 1, 0, 10, 1, 0, 0, 6].as_slice(), &[0; 6]].concat();
        check(&hello, true, true);
        check(&hello, false, false);
        // Peers that leave at once, within what they begin with, with a greeting in pieces or an absurd one.
        for bytes in
            [&[][..], &[22], &[22, 3, 1, 0, 10, 1], &hello[..14], &[22, 3, 1, 0, 5, 1, 0, 0, 6, 0], &[22, 3, 1, 255, 255, 1, 0, 0, 6]]
        {
            check(bytes, true, false);
        }
        for bytes in [&[][..], &[1], &[1, 0, 0, 0, 0], b"GET / HTTP/1.1"] {
            check(bytes, false, false);
        }
    }
}
