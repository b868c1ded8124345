//! Arrows between the folders of the crate run down, never up, and never between two on one floor.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// From the ground up. A file may use what is below its floor, and its own folder.
const FLOORS: [&[&str]; 7] = [
    &["error", "fault", "positional", "number"],
    &["lent", "work"],
    &["kernels", "plan"],
    &["statistics", "checkpoint"],
    &["source", "output"],
    &["execute", "compare"],
    &["lib"],
];

fn floor(room: &str) -> usize {
    let found = FLOORS.iter().position(|rooms| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("`{room}` stands on no floor: add it to FLOORS"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The rooms that a file names after `crate::`, outside its comments.
fn used(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>();
    let room = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || *c == '{').collect()
    };
    code.join("\n").split("crate::").skip(1).map(room).collect()
}

#[test]
fn arrows_between_folders_run_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for file in files(&root) {
        let inside = file.strip_prefix(&root).unwrap();
        let room = Path::new(inside.iter().next().unwrap()).file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("super::super"),
            "{inside:?}: name the folder from the crate's root"
        );
        for other in used(&text) {
            assert!(!other.starts_with('{'), "{inside:?}: one folder in each `use crate::`");
            let down = room == other || floor(&other) < floor(room);
            assert!(down, "{inside:?} is in `{room}` and uses `{other}`, which is no lower");
            checked += 1;
        }
    }
    assert!(checked > 300, "only {checked} uses were found");
}
