//! What is in an image, for programs that look for packages with known weaknesses: a list in the format `CycloneDX` 1.5.
//!
//! <https://cyclonedx.org/docs/1.5/json/>

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    hex,
    packages::{Metadata, Package, UnknownPackage},
};

/// The list for an image.
///
/// `name` and `version` are the image's, `programs` the packages whose programs are in it, and `libraries` what is linked in
/// and is no package of cargo's, with its version: Rust's own library, say.
///
/// The same packages give the same list: it has no date, and its number follows from the rest.
///
/// # Errors
/// When `metadata` does not know a package.
pub fn sbom(
    metadata: &Metadata,
    (name, version): (&str, &str),
    programs: &[&str],
    libraries: &[(&str, &str)],
) -> Result<Value, UnknownPackage> {
    let packages = metadata.linked_into(programs)?;
    let own = "image";
    let mut components: Vec<Value> = packages.iter().map(|it| component(it)).collect();
    components.extend(libraries.iter().map(|library| self::library(*library)));
    let mut dependencies = vec![json!({
        "ref": own,
        "dependsOn": packages
            .iter()
            .filter(|it| programs.contains(&it.name.as_str()))
            .map(|it| it.reference())
            .chain(libraries.iter().map(|(name, _)| (*name).to_owned()))
            .collect::<Vec<_>>(),
    })];
    for package in &packages {
        dependencies.push(
            json!({"ref": package.reference(), "dependsOn": needs(metadata, &packages, package)?}),
        );
    }
    let mut list = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"bom-ref": own, "type": "container", "name": name, "version": version}},
        "components": components,
        "dependencies": dependencies,
    });
    list["serialNumber"] = json!(serial_number(&list));
    Ok(list)
}

/// References of the packages that are linked in because of `package`, each once.
fn needs(
    metadata: &Metadata,
    packages: &[&Package],
    package: &Package,
) -> Result<BTreeSet<String>, UnknownPackage> {
    let needed: BTreeSet<&str> = metadata.needs(&package.id)?.collect();
    let needed = packages.iter().filter(|it| needed.contains(it.id.as_str()));
    Ok(needed.map(|it| it.reference()).collect())
}

fn component(package: &Package) -> Value {
    let mut component = json!({
        "bom-ref": package.reference(),
        "type": "library",
        "name": package.name,
        "version": package.version,
    });
    if package.is_foreign() {
        component["purl"] = json!(package.reference());
    }
    if let Some(licence) = &package.license {
        component["licenses"] = json!([{"expression": expression(licence)}]);
    }
    component
}

fn library((name, version): (&str, &str)) -> Value {
    json!({"bom-ref": name, "type": "library", "name": name, "version": version})
}

impl Package {
    /// Its package URL, which names it among all others.
    fn reference(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// Cargo once took `MIT/Apache-2.0` for "either of them"; SPDX does not.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// A UUID of version 8 (RFC 9562 section 5.8) from the list itself.
fn serial_number(list: &Value) -> String {
    let mut digest = Sha256::digest(list.to_string().as_bytes());
    digest[6] = 0x80 | digest[6] & 0x0f;
    digest[8] = 0x80 | digest[8] & 0x3f;
    let digits = hex(&digest[..16]);
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let package = |name: &str, licence: &str, source: Value| {
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": licence, "source": source,
                "manifest_path": "Cargo.toml",
            })
        };
        let needs = |name: &str| json!({"pkg": name, "dep_kinds": [{"kind": null}]});
        let metadata = json!({
            "packages": [
                package("tool", "Apache-2.0", json!(null)),
                package("alpha", "MIT/Apache-2.0", json!("registry")),
                package("beta", "MIT", json!("registry")),
                package("other", "MIT", json!("registry")),
            ],
            "resolve": {"nodes": [
                {"id": "tool", "deps": [needs("alpha")]},
                {"id": "alpha", "deps": [needs("beta"), {"pkg": "other", "dep_kinds": [{"kind": "build"}]}]},
                {"id": "beta", "deps": []},
                {"id": "other", "deps": []},
            ]},
        });
        serde_json::from_value(metadata).unwrap()
    }

    fn list(version: &str) -> Value {
        sbom(&metadata(), ("image/tool", version), &["tool"], &[("glibc", "2.36")]).unwrap()
    }

    #[test]
    fn what_is_linked_in_is_named_with_its_licence_and_what_it_needs() {
        let list = list("1.0.0");
        let names: Vec<_> = list["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["alpha", "beta", "tool", "glibc"]);
        let alpha = &list["components"][0];
        assert_eq!(alpha["purl"], "pkg:cargo/alpha@1.0.0");
        assert_eq!(alpha["licenses"], json!([{"expression": "MIT OR Apache-2.0"}]));
        assert_eq!(list["components"][2]["purl"], json!(null), "it is ours, and not on crates.io");
        let needs: Vec<_> = list["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["dependsOn"].clone())
            .collect();
        let [tool, beta] = ["pkg:cargo/tool@1.0.0", "pkg:cargo/beta@1.0.0"];
        assert_eq!(
            needs,
            [json!([tool, "glibc"]), json!([beta]), json!([]), json!(["pkg:cargo/alpha@1.0.0"])]
        );
    }

    #[test]
    fn the_number_follows_from_the_content() {
        assert_eq!(list("1.0.0"), list("1.0.0"));
        assert_ne!(list("1.0.0")["serialNumber"], list("1.0.1")["serialNumber"]);
        let number = list("1.0.0")["serialNumber"].as_str().unwrap().to_owned();
        assert_eq!(number.len(), "urn:uuid:".len() + 36);
        assert_eq!(&number[23..24], "8", "the version of the UUID: {number}");
    }
}
