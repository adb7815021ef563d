//! Container images without a build tool: an archive that is written from files.
//!
//! Formats: OCI Image Layout 1.0, with one manifest, one configuration and one uncompressed layer. Beside it in the same
//! archive is the `manifest.json` that `docker save` writes, for tools that know no other format.
//!
//! [`component`] says what Arpeggio's own images hold, [`licences`] collects the licences of what is in them, and [`mod@sbom`] lists
//! it.

#![forbid(unsafe_code)]

mod architecture;
pub mod component;
pub mod licences;
pub mod packages;
pub mod sbom;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use architecture::Architecture;

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
    command: PathBuf,
    architecture: Architecture,
    user: Option<String>,
    labels: BTreeMap<String, String>,
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
    /// An image that runs `command`, and has no files yet but those that name its users. It is for this machine's
    /// processor.
    ///
    /// `name` is what a pod's `image` field says, with a tag: `arpeggio.local/speaker:dev`.
    pub fn new(name: &str, command: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            command: command.into(),
            architecture: Architecture::default(),
            user: None,
            labels: BTreeMap::new(),
            files: Vec::new(),
        }
        .with_text("/etc/passwd", ACCOUNTS)
        .with_text("/etc/group", GROUPS)
    }

    /// An image of one static program, which it runs as `/<file name>`.
    pub fn of_static_program(name: &str, program: &Path) -> Self {
        let inside = Path::new("/").join(program.file_name().unwrap_or_default());
        Self::new(name, &inside).with_file(inside, program)
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

    /// Has the command run as `user` (`uid:gid`), where a pod does not say otherwise; root without it.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Adds a label, which is an annotation of the manifest too.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Says which processor the programs are for.
    #[must_use]
    pub fn for_architecture(mut self, architecture: Architecture) -> Self {
        self.architecture = architecture;
        self
    }

    /// What a pod's `image` field says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the archive. The same files give the same bytes.
    ///
    /// # Errors
    /// When a file of the host cannot be read or the archive not written.
    pub fn write(&self, archive: &Path) -> io::Result<()> {
        let layer_path = archive.with_extension("layer");
        self.write_layer(&layer_path)?;
        let layer = Blob::of_file(&layer_path)?;
        let config = Blob::of_json(&self.config(&layer));
        let manifest = Blob::of_json(&self.manifest(&config, &layer));
        let texts = [
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("index.json", self.index(&manifest)),
            ("manifest.json", self.docker_manifest(&config, &layer)),
        ];
        write_layout(archive, &texts, &[&manifest, &config, &layer])?;
        fs::remove_file(&layer_path)
    }

    /// The file system of the image as one tar.
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
                Content::Host(path) => append_file(&mut tar, &inside, path, mode(path)?)?,
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
        let mut config = self.architecture.platform();
        config["config"] = json!({
            "Entrypoint": [self.command],
            "Env": [format!("PATH={path}")],
            "Labels": self.labels,
        });
        if let Some(user) = &self.user {
            config["config"]["User"] = json!(user);
        }
        config["rootfs"] = json!({"type": "layers", "diff_ids": [layer.digest()]});
        config
    }

    fn manifest(&self, config: &Blob, layer: &Blob) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
            "annotations": self.labels,
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut entry = manifest.descriptor(MANIFEST);
        entry["platform"] = self.architecture.platform();
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.tag(),
        });
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    }

    /// What `docker save` writes: moby, `image/spec/spec.md`.
    fn docker_manifest(&self, config: &Blob, layer: &Blob) -> Value {
        json!([{"Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()]}])
    }

    fn tag(&self) -> &str {
        self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag)
    }
}

fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn mode(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

fn append_folder(tar: &mut tar::Builder<impl Write>, path: &Path, mode: u32) -> io::Result<()> {
    let mut header = header(mode, 0);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, path, io::empty())
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    tar.append_data(&mut header(mode, content.len() as u64), path, content)
}

fn append_file(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    on_host: &Path,
    mode: u32,
) -> io::Result<()> {
    let file = File::open(on_host)?;
    let size = file.metadata()?.len();
    tar.append_data(&mut header(mode, size), path, file)
}

/// Without a time and an owner, which differ from one build to the next.
fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
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

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.sha256)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest(), "size": self.size})
    }
}

fn write_layout(archive: &Path, texts: &[(&str, Value)], blobs: &[&Blob]) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(File::create(archive)?));
    for (name, value) in texts {
        append(&mut tar, Path::new(name), value.to_string().as_bytes(), 0o644)?;
    }
    for blob in blobs {
        let path = blob.path();
        match &blob.content {
            Source::Memory(bytes) => append(&mut tar, Path::new(&path), bytes, 0o644)?,
            Source::File(file) => append_file(&mut tar, Path::new(&path), file, 0o644)?,
        }
    }
    tar.into_inner()?.flush()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

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

    /// An image of a file that is called `hello`, as an archive.
    fn archive(name: &str, change: impl FnOnce(Image) -> Image) -> Vec<u8> {
        let folder =
            std::env::temp_dir().join(format!("arpeggio-image-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (program, archive) = (folder.join("hello"), folder.join("hello.tar"));
        fs::write(&program, "not really a program").unwrap();
        let image = Image::of_static_program("docker.io/lab/hello:1", &program);
        change(image).write(&archive).unwrap();
        let bytes = fs::read(&archive).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        bytes
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn every_blob_is_stored_under_its_digest_and_found_from_the_index() {
        let layout = unpack(&archive("index", |image| {
            image.with_user("65532:65532").with_label("org.opencontainers.image.version", "1.2.3")
        }));
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let content = &layout[&format!("blobs/{digest}")];
            assert_eq!(hex(&Sha256::digest(content)), digest.trim_start_matches("sha256/"));
            assert_eq!(descriptor["size"], content.len());
            content.clone()
        };
        let entry = json(&layout["index.json"])["manifests"][0].clone();
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/lab/hello:1");
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
        let manifest = json(&blob(&entry));
        assert_eq!(manifest["annotations"]["org.opencontainers.image.version"], "1.2.3");
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["architecture"], entry["platform"]["architecture"]);
        assert_eq!(config["config"]["Entrypoint"][0], "/hello");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Labels"], manifest["annotations"]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let files = unpack(&blob(&manifest["layers"][0]));
        assert_eq!(files["hello"], b"not really a program");
        assert!(files.contains_key("tmp") || files.contains_key("tmp/"));
    }

    #[test]
    fn the_archive_can_also_be_read_as_one_of_docker_save() {
        let layout = unpack(&archive("docker", |image| image));
        let image = json(&layout["manifest.json"])[0].clone();
        assert_eq!(image["RepoTags"], json!(["docker.io/lab/hello:1"]));
        let file = |path: &Value| &layout[path.as_str().unwrap()];
        assert_eq!(json(file(&image["Config"]))["config"]["Entrypoint"][0], "/hello");
        assert_eq!(unpack(file(&image["Layers"][0]))["hello"], b"not really a program");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(archive("once", |image| image), archive("again", |image| image));
    }

    #[test]
    fn a_processor_is_named_with_its_variant() {
        let layout = unpack(&archive("arm", |image| image.for_architecture(Architecture::Armv7)));
        let platform = json(&layout["index.json"])["manifests"][0]["platform"].clone();
        assert_eq!(platform, json!({"os": "linux", "architecture": "arm", "variant": "v7"}));
    }
}
