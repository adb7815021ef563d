//! Images of the host's own programs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use arpeggio_image::Image;

use crate::error::{LabError, Result};
use crate::namespace::run_on_host;
use crate::programs::find;

/// An image of programs of the host, with the shared libraries that they need, all at the host's
/// own paths. It runs the first.
///
/// # Errors
/// When a program is not there or its libraries cannot be listed.
pub fn of_host_programs(name: &str, programs: &[&str]) -> Result<Image> {
    let found = programs.iter().map(|program| found(program)).collect::<Result<Vec<_>>>()?;
    let mut files: BTreeSet<PathBuf> = found.iter().cloned().collect();
    for program in &found {
        files.extend(libraries(program)?);
    }
    let image = Image::new(name, found.first().cloned().unwrap_or_default());
    Ok(files.into_iter().fold(image, |image, file| image.with_file(file.clone(), file)))
}

fn found(program: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| LabError::MissingPrograms {
        programs: program.to_owned(),
        packages: program.to_owned(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ldd() {
        let listed = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so (0x7f)\n";
        assert_eq!(library_paths(listed), ["/lib/x/libc.so.6", "/lib64/ld.so"].map(PathBuf::from));
    }
}
