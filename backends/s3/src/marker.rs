//! The object beside the blobs that says that here is a storage, and what was found out about the server that it is on.
//!
//! It is a file like others: copied to another server, it speaks of the one that it comes from. So it names the servers that were
//! tried, and a writer tries one that it does not name. Like everything in the bucket it is believed for convenience alone: one that
//! lies makes a writer take a server for tried, which then still has to refuse to write over the marker.

use std::fmt;

use crate::config::ConditionalPut;
use crate::connect::Place;

/// Its name, after the prefix.
pub(crate) const NAME: &str = "strongroom-storage";

/// It is a few lines.
pub(crate) const BYTES_MAX: u64 = 4096;

/// One server may be known by several names. With addresses of a usual length these fit.
const PLACES_MAX: usize = 8;

/// Longer addresses are not written down: whoever has one tries each time.
const PLACE_BYTES_MAX: usize = 400;

const FIRST_LINE: &str = "strongroom storage 1";
const NATIVE: &str = "conditional-put native";
const NONE: &str = "conditional-put none";
const AT: &str = "at ";
const WRITER: &str = "writer ";

/// Digits of the number by which a single writer is known.
const WRITER_DIGITS: usize = 16;

/// What is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) conditional_put: ConditionalPut,
    /// The servers that this was found out about, the last one first.
    places: Vec<String>,
    /// Who writes, where one alone does: a number that it drew when it began.
    pub(crate) writer: Option<String>,
    /// What stands behind it: for people to read.
    evidence: String,
}

/// It is of another program, or of a later version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl Marker {
    /// Of a server that was tried, in place of what stood there.
    pub(crate) fn proven(evidence: &str, place: &Place, before: Option<&Self>) -> Self {
        let place = spelt(place);
        let mut places: Vec<_> = (place.len() <= PLACE_BYTES_MAX).then_some(place).into_iter().collect();
        for known in before.map(|marker| marker.places.as_slice()).unwrap_or_default() {
            if places.len() < PLACES_MAX && !places.contains(known) {
                places.push(known.clone());
            }
        }
        Self { conditional_put: ConditionalPut::Native, places, writer: None, evidence: evidence.to_string() }
    }

    pub(crate) fn single_writer(place: &Place, writer: [u8; WRITER_DIGITS / 2]) -> Self {
        Self {
            conditional_put: ConditionalPut::SingleWriter,
            places: vec![spelt(place)],
            writer: Some(writer.iter().map(|byte| format!("{byte:02x}")).collect()),
            evidence: "one process alone may write here, as whoever made it promised".to_owned(),
        }
    }

    /// Whether it speaks of this server.
    pub(crate) fn is_of(&self, place: &Place) -> bool {
        let place = spelt(place);
        self.places.contains(&place)
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unknown> {
        let text = std::str::from_utf8(bytes).map_err(|_| Unknown)?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(Unknown);
        }
        let conditional_put = match lines.next() {
            Some(NATIVE) => ConditionalPut::Native,
            Some(NONE) => ConditionalPut::SingleWriter,
            _ => return Err(Unknown),
        };
        let (places, rest): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with(AT));
        let (writers, evidence): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| line.starts_with(WRITER));
        let writer = writers.first().and_then(|line| line.strip_prefix(WRITER));
        let writer = writer.filter(|writer| writer.len() == WRITER_DIGITS).map(str::to_owned);
        let places = places.iter().filter_map(|line| line.strip_prefix(AT));
        let places =
            places.filter(|place| place.len() <= PLACE_BYTES_MAX).take(PLACES_MAX).map(str::to_owned).collect();
        Ok(Self { conditional_put, places, writer, evidence: evidence.join("\n") })
    }
}

fn spelt(place: &Place) -> String {
    format!("{} {}", place.endpoint, place.bucket)
}

impl fmt::Display for Marker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditional_put = match self.conditional_put {
            ConditionalPut::Native => NATIVE,
            ConditionalPut::SingleWriter => NONE,
        };
        writeln!(formatter, "{FIRST_LINE}\n{conditional_put}")?;
        for place in &self.places {
            writeln!(formatter, "{AT}{place}")?;
        }
        if let Some(writer) = &self.writer {
            writeln!(formatter, "{WRITER}{writer}")?;
        }
        writeln!(formatter, "{}", self.evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: &str) -> Place {
        Place { endpoint: endpoint.to_owned(), bucket: "bucket".to_owned() }
    }

    #[test]
    fn what_is_written_reads_back_and_other_files_are_not_taken_for_it() {
        let read = |text: &str| Marker::read(text.as_bytes());
        for marker in [Marker::single_writer(&place("e"), [7; 8]), Marker::proven("tried", &place("e"), None)] {
            assert_eq!(read(&marker.to_string()), Ok(marker));
        }
        let old = read(&format!("{FIRST_LINE}\n{NATIVE}\nsince then\n")).unwrap();
        assert_eq!(old.conditional_put, ConditionalPut::Native);
        assert!(!old.is_of(&place("e")));
        for text in ["", "strongroom storage 2\n", FIRST_LINE, "<html>"] {
            assert_eq!(read(text), Err(Unknown), "{text}");
        }
    }

    #[test]
    fn it_knows_the_servers_that_were_tried_and_no_others() {
        let mut marker = Marker::proven("tried", &place("https://first"), None);
        assert!(!marker.is_of(&Place { bucket: "other".to_owned(), ..place("https://first") }));
        for number in 0..20 {
            let next = place(&format!("https://{}{number}", "x".repeat(380)));
            assert!(!marker.is_of(&next));
            marker = Marker::proven("tried", &next, Some(&marker));
            assert!(marker.is_of(&next));
            assert!(marker.to_string().len() as u64 <= BYTES_MAX);
            assert_eq!(Marker::read(marker.to_string().as_bytes()), Ok(marker.clone()));
        }
        assert!(!marker.is_of(&place("https://first")), "the oldest makes room");
    }
}
