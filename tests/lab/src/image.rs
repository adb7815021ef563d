//! Container images without a build tool: an archive in the OCI image layout, written from files of
//! the host.
//!
//! Format: OCI Image Layout 1.0, with one manifest, one configuration and one uncompressed layer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Doing, LabError, Result};
use crate::namespace::run_on_host;
use crate::programs::find;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Programs in the image may write here, whoever they run as.
const SCRATCH: &str = "tmp";
const ACCOUNTS: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";

/// An image to be: a name, a command and files.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    command: Vec<String>,
    files: Vec<(PathBuf, Content)>,
}

#[derive(Clone, Debug)]
enum Content {
    /// Copied from the host, with its mode; a symbolic link is followed.
    Host(PathBuf),
    /// Written as it is.
    Text(String),
}

impl Image {
    /// An image of one static program, which it runs as `/<file name>`.
    ///
    /// `name` is what a pod's `image` field says, with a tag: `arpeggio.local/speaker:dev`.
    pub fn of_static_program(name: &str, program: &Path) -> Self {
        let inside = Path::new("/").join(program.file_name().unwrap_or_default());
        Self {
            name: name.to_owned(),
            command: vec![inside.to_string_lossy().into_owned()],
            files: vec![(inside, Content::Host(program.to_owned()))],
        }
        .with_accounts()
    }

    /// An image of programs of the host, with the shared libraries that they need, all at the
    /// host's own paths. It runs the first.
    ///
    /// # Errors
    /// When a program is not there or its libraries cannot be listed.
    pub fn of_host_programs(name: &str, programs: &[&str]) -> Result<Self> {
        let mut paths = BTreeSet::new();
        let mut command = Vec::new();
        for program in programs {
            let path = find(program).ok_or_else(|| LabError::MissingPrograms {
                programs: (*program).to_owned(),
                packages: (*program).to_owned(),
            })?;
            paths.extend(libraries(&path)?);
            command.push(path.to_string_lossy().into_owned());
            paths.insert(path);
        }
        command.truncate(1);
        let files = paths.into_iter().map(|path| (path.clone(), Content::Host(path))).collect();
        Ok(Self { name: name.to_owned(), command, files }.with_accounts())
    }

    /// Adds a file of the host under another path.
    #[must_use]
    pub fn with_file(mut self, inside: impl Into<PathBuf>, on_host: impl Into<PathBuf>) -> Self {
        self.files.push((inside.into(), Content::Host(on_host.into())));
        self
    }

    /// Adds a text file.
    #[must_use]
    pub fn with_text(mut self, inside: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.files.push((inside.into(), Content::Text(text.into())));
        self
    }

    fn with_accounts(self) -> Self {
        self.with_text("/etc/passwd", ACCOUNTS).with_text("/etc/group", GROUPS)
    }

    /// What a pod's `image` field says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When a file of the host cannot be read or the archive not written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer_path = archive.with_extension("layer");
        let what = || format!("write image {} to {}", self.name, archive.display());
        self.write_layer(&layer_path).doing(what())?;
        let layer = Blob::of_file(&layer_path).doing(what())?;
        let config = Blob::of_json(&self.config(&layer));
        let manifest = Blob::of_json(&manifest(&config, &layer));
        let index = index(&self.name, &manifest);
        write_layout(archive, &index, &[&manifest, &config, &layer]).doing(what())?;
        fs::remove_file(&layer_path).doing(what())
    }

    /// The file system of the image as one tar. The same files give the same bytes.
    fn write_layer(&self, path: &Path) -> io::Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::new(File::create(path)?));
        append_folder(&mut tar, Path::new(SCRATCH), 0o1777)?;
        for folder in self.folders() {
            append_folder(&mut tar, &folder, 0o755)?;
        }
        for (inside, content) in &self.files {
            let inside = relative(inside);
            match content {
                Content::Text(text) => append(&mut tar, &inside, text.as_bytes(), 0o644)?,
                Content::Host(path) => append(&mut tar, &inside, &fs::read(path)?, mode(path)?)?,
            }
        }
        tar.into_inner()?.flush()
    }

    /// The folders that the files need, parents first.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let parents = self.files.iter().flat_map(|(path, _)| {
            relative(path).ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>()
        });
        parents.filter(|folder| !folder.as_os_str().is_empty()).collect()
    }

    fn config(&self, layer: &Blob) -> Value {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        json!({
            "architecture": go_architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.command, "Env": [format!("PATH={path}")]},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
        })
    }
}

/// The shared libraries of a program and its loader, as the loader itself finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = run_on_host("ldd", &[&program.to_string_lossy()])?;
    Ok(library_paths(&listed))
}

/// Reads `ldd`'s lines: `name => /path (address)`, or `/path (address)` for the loader.
fn library_paths(listed: &str) -> Vec<PathBuf> {
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(path).collect()
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn mode(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

fn append_folder(tar: &mut tar::Builder<impl Write>, path: &Path, mode: u32) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    tar.append_data(&mut header, path, io::empty())
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content)
}

/// A piece of the layout, stored under its digest.
struct Blob {
    content: Source,
    sha256: String,
    size: u64,
}

enum Source {
    Memory(Vec<u8>),
    File(PathBuf),
}

impl Blob {
    fn of_json(value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        let sha256 = hex(&Sha256::digest(&bytes));
        Self { size: bytes.len() as u64, content: Source::Memory(bytes), sha256 }
    }

    fn of_file(path: &Path) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let size = io::copy(&mut File::open(path)?, &mut hash)?;
        Ok(Self { size, content: Source::File(path.to_owned()), sha256: hex(&hash.finalize()) })
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest(), "size": self.size})
    }
}

fn manifest(config: &Blob, layer: &Blob) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(CONFIG),
        "layers": [layer.descriptor(LAYER)],
    })
}

fn index(name: &str, manifest: &Blob) -> Value {
    let mut entry = manifest.descriptor(MANIFEST);
    entry["annotations"] = json!({"io.containerd.image.name": name});
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
}

fn write_layout(archive: &Path, index: &Value, blobs: &[&Blob]) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(File::create(archive)?));
    append(&mut tar, Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut tar, Path::new("index.json"), index.to_string().as_bytes(), 0o644)?;
    for blob in blobs {
        let path = Path::new("blobs/sha256").join(&blob.sha256);
        match &blob.content {
            Source::Memory(bytes) => append(&mut tar, &path, bytes, 0o644)?,
            Source::File(file) => tar.append_file(path, &mut File::open(file)?)?,
        }
    }
    tar.into_inner()?.flush()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// OCI images name processors as Go does.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    /// Everything in a tar, by path.
    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        });
        entries.collect()
    }

    fn scratch(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("arpeggio-lab-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn every_blob_is_stored_under_its_digest_and_found_from_the_index() {
        let folder = scratch("image");
        let (program, archive) = (folder.join("hello"), folder.join("hello.tar"));
        fs::write(&program, "not really a program").unwrap();
        Image::of_static_program("lab.local/hello:1", &program).write(&archive).unwrap();
        let layout = unpack(&fs::read(&archive).unwrap());
        fs::remove_dir_all(&folder).unwrap();

        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let content = &layout[&format!("blobs/{digest}")];
            assert_eq!(hex(&Sha256::digest(content)), digest.trim_start_matches("sha256/"));
            assert_eq!(descriptor["size"], content.len());
            content.clone()
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let entry = json(&layout["index.json"])["manifests"][0].clone();
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "lab.local/hello:1");
        let manifest = json(&blob(&entry));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"][0], "/hello");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let files = unpack(&blob(&manifest["layers"][0]));
        assert_eq!(files["hello"], b"not really a program");
        assert!(files.contains_key("tmp") || files.contains_key("tmp/"));
    }

    #[test]
    fn lines_of_ldd() {
        let listed = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so (0x7f)\n";
        assert_eq!(library_paths(listed), ["/lib/x/libc.so.6", "/lib64/ld.so"].map(PathBuf::from));
    }
}
