//! Puts ONNX Runtime's library into a folder.
//!
//! It comes out of the Python package of the project itself, whose index any machine that installs Python packages reaches,
//! mirrors and proxies included. One fixed package a platform is taken whatever the local Python is, so that one hash checks it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::runtime::library_in;

/// Version of ONNX Runtime.
pub const RUNTIME_VERSION: &str = "1.24.4";

/// Why ONNX Runtime is not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No package for this machine.
    #[error("there is no known ONNX Runtime {RUNTIME_VERSION} for {platform}: install it by hand and set ORT_DYLIB_PATH to the library")]
    Platform {
        /// Operating system and processor.
        platform: String,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed: {reason}; it needs Python 3 with pip, and a package index (PIP_INDEX_URL, PIP_PROXY)")]
    Command {
        /// The command.
        command: String,
        /// Its last words.
        reason: String,
    },
    /// Not the package that was reviewed.
    #[error("(got SHA-256 {got}, expected {expected}) for file: {path}; it is not installed")]
    Hash {
        /// The file.
        path: PathBuf,
        /// Its hash.
        got: String,
        /// The known hash.
        expected: &'static str,
    },
}

struct Package {
    os: &'static str,
    processor: &'static str,
    /// Platform tag of the wheel.
    tag: &'static str,
    sha256: &'static str,
    /// The library's path in the wheel.
    library: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package {
        os: "linux",
        processor: "x86_64",
        tag: "manylinux_2_28_x86_64",
        sha256: "0d640eb9f3782689b55cfa715094474cd5662f2f137be6a6f847a594b6e9705c",
        library: "onnxruntime/capi/libonnxruntime.so.1.24.4",
    },
    Package {
        os: "linux",
        processor: "aarch64",
        tag: "manylinux_2_28_aarch64",
        sha256: "1a5c5a544b22f90859c88617ecb30e161ee3349fcc73878854f43d77f00558b5",
        library: "onnxruntime/capi/libonnxruntime.so.1.24.4",
    },
    Package {
        os: "macos",
        processor: "aarch64",
        tag: "macosx_14_0_arm64",
        sha256: "cad1c2b3f455c55678ab2a8caa51fb420c25e6e3cf10f4c23653cdabedc8de78",
        library: "onnxruntime/capi/libonnxruntime.1.24.4.dylib",
    },
];

fn run(command: &mut Command) -> Result<(), InstallError> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().map_err(|error| InstallError::Command { command: shown.clone(), reason: error.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let reason = errors.lines().rev().find(|line| !line.trim().is_empty() && !line.contains("[notice]")).unwrap_or("no message");
    Err(InstallError::Command { command: shown, reason: reason.trim().to_owned() })
}

fn check_hash(path: &Path, expected: &'static str) -> Result<(), InstallError> {
    let io = |source| InstallError::File { path: path.to_owned(), source };
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path).map_err(io)?, &mut hasher).map_err(io)?;
    let got = hex::encode(hasher.finalize());
    if got == expected { Ok(()) } else { Err(InstallError::Hash { path: path.to_owned(), got, expected }) }
}

/// The one file in a folder that ends in `.whl`.
fn wheel_in(folder: &Path) -> Result<PathBuf, InstallError> {
    let io = |source| InstallError::File { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(io(std::io::Error::new(std::io::ErrorKind::NotFound, "no wheel was downloaded")))
}

/// Puts the library into `folder`, unless it is there, and returns its path. The library gets its name only when it is whole.
///
/// # Errors
/// [`InstallError`] where the download fails or is not what was reviewed.
pub fn install_runtime(folder: &Path) -> Result<PathBuf, InstallError> {
    let (os, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let package = PACKAGES
        .iter()
        .find(|package| package.os == os && package.processor == processor)
        .ok_or_else(|| InstallError::Platform { platform: format!("{os} on {processor}") })?;
    install(package, folder)
}

fn install(package: &Package, folder: &Path) -> Result<PathBuf, InstallError> {
    let library = Path::new(package.library);
    let target = folder.join(library.file_name().unwrap_or(library.as_os_str()));
    if library_in(folder).is_some_and(|found| found == target) {
        return Ok(target);
    }
    let scratch = folder.join(format!("download-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(|source| InstallError::File { path: scratch.clone(), source })?;
    let outcome = download(package, &scratch, &target);
    // What is left of a failed download is of no use; that it can't be removed is no failure of the installation.
    let _ = std::fs::remove_dir_all(&scratch);
    outcome.map(|()| target)
}

fn download(package: &Package, scratch: &Path, target: &Path) -> Result<(), InstallError> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .args(["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--platform", package.tag, "--dest"])
        .arg(scratch)
        .arg(format!("onnxruntime=={RUNTIME_VERSION}"));
    run(&mut pip)?;
    let wheel = wheel_in(scratch)?;
    check_hash(&wheel, package.sha256)?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(scratch))?;
    std::fs::rename(scratch.join(package.library), target).map_err(|source| InstallError::File { path: target.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_reviewed_is_not_installed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("onnxruntime-1.whl");
        std::fs::write(&path, b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        check_hash(&path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let error = check_hash(&path, PACKAGES[0].sha256).unwrap_err();
        assert!(matches!(error, InstallError::Hash { .. }), "{error}");
        assert_eq!(wheel_in(folder.path()).unwrap(), path);
    }

    #[test]
    fn an_installed_library_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("libonnxruntime.so.1.24.4");
        std::fs::write(&target, b"library").unwrap();
        assert_eq!(install(&PACKAGES[0], folder.path()).unwrap(), target);
        assert_eq!(std::fs::read(&target).unwrap(), b"library");
    }

    #[test]
    fn a_failed_download_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let package = Package { tag: "no_such_platform", ..PACKAGES[0] };
        let error = install(&package, folder.path()).unwrap_err();
        assert!(matches!(error, InstallError::Command { .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
