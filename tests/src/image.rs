//! A file system whose power can be cut: ext4 in a file, mounted by loop.
//!
//! The file holds what the file system has handed to its disk. What lives only in the kernel's
//! memory of that file system is not in it, exactly as after a power cut on a disk that honours
//! flush. A copy, taken while the writer stands still, is the disk after the cut; mounting it
//! replays ext4's journal, as the next boot does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::installed;

/// A mounted image. Unmounted when dropped.
#[derive(Debug)]
pub struct DiskImage {
    file: PathBuf,
    folder: PathBuf,
}

impl DiskImage {
    /// Makes and mounts an empty one: `<home>/<name>.img` at `<home>/<name>`.
    ///
    /// # Errors
    /// When a tool fails; mounting needs root.
    pub fn make(home: &Path, name: &str, bytes: u64) -> anyhow::Result<Self> {
        let file = home.join(format!("{name}.img"));
        std::fs::File::create(&file)?.set_len(bytes)?;
        run(Command::new(installed("mkfs.ext4", "e2fsprogs")).args(["-q", "-F", "-m", "0"]).arg(&file))?;
        Self::mount(file, home.join(name))
    }

    /// The disk as it would be after a power cut now, mounted anew at `<home>/<name>`. The writer
    /// must stand still.
    ///
    /// # Errors
    /// When the copy cannot be made or mounted.
    pub fn cut(&self, home: &Path, name: &str) -> anyhow::Result<Self> {
        let file = home.join(format!("{name}.img"));
        std::fs::copy(&self.file, &file)?;
        Self::mount(file, home.join(name))
    }

    /// The disk as it would be after a power cut now, beside its file. The writer must stand still.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self) -> anyhow::Result<PathBuf> {
        let copy = self.file.with_extension("cut");
        run(Command::new("cp").arg("--sparse=always").arg(&self.file).arg(&copy))?;
        Ok(copy)
    }

    /// Mounts a copy in the place of this one, which nobody may use any more.
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

    /// Where it is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for DiskImage {
    fn drop(&mut self) {
        let unmount = |options: &[&str]| run(Command::new("umount").args(options).arg(&self.folder));
        // Something may still have a file open there: then it goes when that ends.
        if unmount(&[]).or_else(|_| unmount(&["-l"])).is_err() {
            eprintln!("{} stays mounted", self.folder.display());
        }
    }
}

fn mount(file: &Path, folder: &Path) -> anyhow::Result<()> {
    run(Command::new(installed("mount", "mount")).args(["-o", "loop"]).arg(file).arg(folder))
        .context("failed to mount a loop image: it needs root and loop devices")
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
