//! A small disk that can really be full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory, there until this is dropped.
pub struct Mounted(PathBuf);

/// Mounts one of a size, as `mount` takes it, at a folder; `None` where this process may not, or there is none.
pub fn mount_small(at: &Path, size: &str) -> Option<Mounted> {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
    let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    is_mounted.then(|| Mounted(at.to_owned()))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
