//! Small disks, for what happens when they are full.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of its own, in memory, where the machine lets a test mount one.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many megabytes on a folder; says aloud if that is not allowed here.
    pub fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        eprintln!("SKIPPED: this machine does not let a test mount a small file system");
        None
    }

    /// Gives it this size from now on.
    pub fn resize(&self, megabytes: u64) {
        let size = format!("remount,size={megabytes}m");
        let grown = Command::new("mount").args(["-o", &size]).arg(&self.at).output().expect("mount runs");
        assert!(grown.status.success(), "{}", String::from_utf8_lossy(&grown.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.at).status());
    }
}
