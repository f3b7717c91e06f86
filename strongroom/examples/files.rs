//! Files and folders, through the blocking API: write, list, read, look for damage.
//!
//! `cargo run -p strongroom --example files [FOLDER]`

use std::io::{BufRead, BufReader, Write};

use strongroom::blocking::Repository;
use strongroom::check::CheckOptions;
use strongroom::{CreateOptions, Credentials, Result};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // A folder of your choice, or memory that is gone with the process.
    let place = std::env::args().nth(1).unwrap_or_else(|| "mem://example".to_owned());
    let options = CreateOptions::new(Credentials::password("correct horse battery staple"));
    let repository = Repository::create(place, options)?;
    write_diary(&repository)?;

    for entry in repository.fs().read_dir("/diary")? {
        println!("{:?} {}", entry.kind, String::from_utf8_lossy(&entry.name));
    }
    let file = repository.fs().open_file("/diary/monday.txt")?;
    for line in BufReader::new(file).lines() {
        println!("| {}", line?);
    }

    let report = repository.check(CheckOptions { data: true }, |finding| println!("damage: {}", finding.detail))?;
    println!("{} files, {} findings", report.files, report.findings);
    Ok(repository.close()?)
}

fn write_diary(repository: &Repository) -> Result<()> {
    let fs = repository.fs();
    fs.create_dir("/diary")?;
    let mut monday = fs.create_file("/diary/monday.txt")?;
    for line in ["Rain.", "Read a book."] {
        writeln!(monday, "{line}").map_err(|error| strongroom::Error::Source(error.into()))?;
    }
    // Until here nobody else sees the file's content; from here on it is durable.
    monday.close()?;
    fs.write("/diary/tuesday.txt", "Sun.\n")?;
    fs.symlink("tuesday.txt", "/diary/best-day.txt")
}
