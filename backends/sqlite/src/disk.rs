//! What kind of file system a database is on: SQLite's processes see each other by memory that they share, and on one that other
//! hosts write to, too, it has the kernel's word for that memory and not theirs.

use std::path::Path;

/// By the numbers of Linux's `statfs(2)`: network file systems, those of clusters, what a host shows its guests, and FUSE, of which nobody
/// can tell what is behind it; those that are known (`linux/magic.h`, and what `stat -f` of coreutils calls remote). Not a list of what
/// is allowed: local ones are many, and new ones come.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SHARED: [(u32, &str); 23] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x6573_5546, "FUSE"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0xaad7_aaea, "PanFS"),
    (0xbeef_dead, "StorNext"),
    (0x6163_6673, "ACFS"),
    (0x7c7c_6673, "Parallels' shared folders"),
    (0x786f_4256, "VirtualBox's shared folders"),
    (0xbacb_acbc, "VMware's shared folders"),
];

/// The name of the file system that a file or folder is on, where other hosts may write to it, too, or nobody can tell. The file is
/// not opened: closing it would end the locks that this process has on it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn shared(path: &Path) -> Option<&'static str> {
    let filesystem = rustix::fs::statfs(path).ok()?;
    // The field's type differs between architectures; the number has 32 bits.
    named(i128::from(filesystem.f_type))
}

/// Elsewhere SQLite itself finds out that it cannot share memory.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn shared(_: &Path) -> Option<&'static str> {
    None
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn named(number: i128) -> Option<&'static str> {
    SHARED.iter().find(|(shared, _)| i128::from(*shared) == number & 0xffff_ffff).map(|(_, name)| *name)
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones_however_wide_the_number_is() {
        for (number, name) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("CIFS")),
            (i128::from(0xff53_4d42_u32.cast_signed()), Some("CIFS")),
            (0x0102_1997, Some("9p")),
            (0x6573_5546, Some("FUSE")),
            (i128::from(0xbeef_dead_u32.cast_signed()), Some("StorNext")),
            // ext4, XFS, Btrfs, ZFS, tmpfs, overlayfs.
            (0xef53, None),
            (0x5846_5342, None),
            (i128::from(0x9123_683e_u32.cast_signed()), None),
            (0x2fc1_2fc1, None),
            (0x0102_1994, None),
            (0x794c_7630, None),
        ] {
            assert_eq!(named(number), name, "{number:x}");
        }
    }

    #[test]
    fn memory_is_shared_by_one_host_alone() {
        if Path::new("/dev/shm").is_dir() {
            assert_eq!(shared(Path::new("/dev/shm")), None);
        }
    }
}
