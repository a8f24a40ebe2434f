//! Turns the profiles (TOML, for people) into one postcard blob (for the program). A profile that does not read stops
//! the build with its file, line and field.

#[path = "src/profile.rs"]
mod profile;

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use profile::Profile;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=profiles");
    println!("cargo::rerun-if-changed=src/profile.rs");
    let mut files: Vec<_> = fs::read_dir("profiles")?.collect::<Result<Vec<_>, _>>()?;
    // The same bytes on every machine.
    files.sort_by_key(fs::DirEntry::file_name);
    let mut profiles: Vec<Profile> = Vec::new();
    for file in files {
        let path = file.path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            let profile = toml::from_str(&fs::read_to_string(&path)?);
            profiles.push(profile.map_err(|error| format!("{}: {error}", path.display()))?);
        }
    }
    let out = env::var("OUT_DIR")?;
    fs::write(
        Path::new(&out).join("profiles.postcard"),
        postcard::to_allocvec(&profiles)?,
    )?;
    Ok(())
}
