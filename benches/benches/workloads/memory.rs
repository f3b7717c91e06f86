//! The most memory that a process takes beyond what it took before, while it stores a large file and reads it back: a
//! process of its own, so that no other workload's memory is in it.

use std::io::{Read as _, Write as _};

use strongroom_benches::figures::{Recorder, random_bytes};

use crate::place::Place;
use crate::{Outcome, Scale};

/// What the child prints before its figure.
const MARK: &str = "peak bytes: ";

pub(crate) fn run(recorder: &mut Recorder, place: &Place, _: &Scale) -> Outcome {
    if !cfg!(target_os = "linux") {
        return Ok(()); // nobody else says it in /proc
    }
    let mut child = std::process::Command::new(std::env::current_exe()?);
    child.args(["--memory-of", &place.block_bytes()?.to_string()]);
    if place.smoke {
        child.arg("--smoke");
    }
    let output = child.output()?;
    let text = String::from_utf8(output.stdout)?;
    let peak = text.lines().find_map(|line| line.strip_prefix(MARK)).and_then(|digits| digits.parse::<u64>().ok());
    let Some(peak) = peak else {
        return Err(format!("the child said nothing: {}", String::from_utf8_lossy(&output.stderr)).into());
    };
    recorder.note(&format!("{}/memory", place.name()), "MiB", peak as f64 / f64::from(1 << 20))?;
    Ok(())
}

/// The child.
pub(crate) fn measure(place: &Place, scale: &Scale) -> Outcome {
    let (repository, _store) = place.repository(true)?;
    // Noise is made piece by piece: the source must not be in the figure. The key derivation's memory was returned.
    let mut piece = random_bytes(14, 64 << 10);
    std::fs::write("/proc/self/clear_refs", "5")?; // the high-water mark begins anew
    let before = resident("VmRSS:")?;
    let mut file = repository.fs().create_file("/large")?;
    for number in 0..scale.streamed_bytes / piece.len() as u64 {
        for (at, byte) in (0..).zip(piece.iter_mut().step_by(64)) {
            *byte = byte.wrapping_add((number as u8) ^ (at as u8)).wrapping_mul(167);
        }
        file.write_all(&piece)?;
    }
    file.close()?;
    let mut file = repository.fs().open_file("/large")?;
    let mut total = 0;
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => total += read as u64,
        }
    }
    assert_eq!(total, scale.streamed_bytes);
    println!("{MARK}{}", resident("VmHWM:")?.saturating_sub(before));
    Ok(())
}

/// A field of `/proc/self/status`, in bytes.
fn resident(field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or("no such field")? << 10)
}
