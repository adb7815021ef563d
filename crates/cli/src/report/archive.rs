//! Files packed as `.tar.gz`.

use std::collections::BTreeMap;

use flate2::{Compression, write::GzEncoder};
use k8s_openapi::jiff::Timestamp;
use tar::{Builder, Header};

/// Texts that go into one folder.
pub(super) struct Archive<'a> {
    /// The folder's name.
    pub(super) name: &'a str,
    /// The files by their paths in it.
    pub(super) files: &'a BTreeMap<String, String>,
    /// When they were made.
    pub(super) time: Timestamp,
}

impl Archive<'_> {
    /// The bytes of it.
    pub(super) fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (path, text) in self.files {
            let mut header = Header::new_gnu();
            header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(self.time.as_second()).unwrap_or_default());
            tar.append_data(&mut header, format!("{}/{path}", self.name), text.as_bytes())?;
        }
        tar.into_inner()?.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let files = BTreeMap::from([
            ("README.txt".to_owned(), "a".to_owned()),
            ("logs/pod/speaker.log".to_owned(), "b\n".to_owned()),
        ]);
        let time = "2026-01-01T00:00:00Z".parse().unwrap();
        let packed = Archive { name: "report", files: &files, time }.pack().unwrap();
        let mut tar = tar::Archive::new(GzDecoder::new(&packed[..]));
        let mut found = BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.insert(path.strip_prefix("report/").unwrap().to_owned(), text);
        }
        assert_eq!(found, files);
    }
}
