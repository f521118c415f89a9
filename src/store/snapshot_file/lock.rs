//! That one process writes a file.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::{SnapshotFileError, io_error};

/// The right to write a file. On Unix it is a lock of the system, which ends with the process.
#[derive(Debug)]
pub(super) struct FileLock {
    #[cfg_attr(unix, allow(dead_code, reason = "held for its lock"))]
    file: File,
    #[cfg(not(unix))]
    path: PathBuf,
}

impl FileLock {
    /// `None` if another process has it.
    pub(super) fn take(path: &Path) -> Result<Option<Self>, SnapshotFileError> {
        let path = beside(path, ".lock");
        match Self::try_take(&path) {
            Ok(lock) => Ok(Some(lock)),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::AlreadyExists) =>
            {
                Ok(None)
            }
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// The file stays: another process may have opened it, to wait for its lock.
    #[cfg(unix)]
    fn try_take(path: &Path) -> io::Result<Self> {
        let file = private().create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { file })
    }

    #[cfg(not(unix))]
    fn try_take(path: &Path) -> io::Result<Self> {
        Ok(Self { file: private().create_new(true).open(path)?, path: path.to_owned() })
    }
}

#[cfg(not(unix))]
impl Drop for FileLock {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.path);
    }
}

/// To write a file that others cannot read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A file of the same name with this ending, in the same directory.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}
