//! A file system whose power can be cut: ext4 in a file, mounted by loop.
//!
//! The file holds the data that the file system has written to its disk. Data that is only in the kernel's
//! memory is not in it, exactly as after a power cut on a disk that honours flush. A copy, taken while the
//! writer is stopped, is the disk after the cut; mounting it replays the journal of ext4, as the next boot
//! does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::installed_program;

/// A mounted image, unmounted when this is dropped.
#[derive(Debug)]
pub struct DiskImage {
    file: PathBuf,
    folder: PathBuf,
}

impl DiskImage {
    /// Makes an empty image and mounts it: `<home>/<name>.img` at `<home>/<name>`.
    ///
    /// # Errors
    /// When a tool fails; mounting needs root.
    pub fn make(home: &Path, name: &str, bytes: u64) -> anyhow::Result<Self> {
        let file = home.join(format!("{name}.img"));
        std::fs::File::create(&file)?.set_len(bytes)?;
        run(Command::new(installed_program("mkfs.ext4", "e2fsprogs"))
            .args(["-q", "-F", "-m", "0"])
            .arg(&file))?;
        Self::mount(file, home.join(name))
    }

    /// Mounts the disk as it would be after a power cut now, at `<home>/<name>`. The writer must be stopped.
    ///
    /// # Errors
    /// When the copy cannot be made or mounted.
    pub fn cut(&self, home: &Path, name: &str) -> anyhow::Result<Self> {
        let file = home.join(format!("{name}.img"));
        std::fs::copy(&self.file, &file)?;
        Self::mount(file, home.join(name))
    }

    /// Copies the disk as it would be after a power cut now, beside its file. The writer must be stopped.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self) -> anyhow::Result<PathBuf> {
        let copy = self.file.with_extension("cut");
        run(Command::new("cp").arg("--sparse=always").arg(&self.file).arg(&copy))?;
        Ok(copy)
    }

    /// Mounts a copy in the place of this image, which must not be in use.
    ///
    /// # Errors
    /// When it is in use, or the copy cannot be mounted.
    pub fn replace(&mut self, copy: &Path) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.folder))?;
        std::fs::rename(copy, &self.file)?;
        mount(&self.file, &self.folder)
    }

    fn mount(file: PathBuf, folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        mount(&file, &folder)?;
        Ok(Self { file, folder })
    }

    /// The folder at which it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for DiskImage {
    fn drop(&mut self) {
        let unmount = |options: &[&str]| run(Command::new("umount").args(options).arg(&self.folder));
        // If a process still has a file open there, the image is unmounted when that process ends.
        if unmount(&[]).or_else(|_| unmount(&["-l"])).is_err() {
            eprintln!("{} stays mounted", self.folder.display());
        }
    }
}

fn mount(file: &Path, folder: &Path) -> anyhow::Result<()> {
    run(Command::new(installed_program("mount", "mount")).args(["-o", "loop"]).arg(file).arg(folder))
        .context("failed to mount a loop image: it needs root and loop devices")
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
