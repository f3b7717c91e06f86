//! Pages of listings, before the client reads them. It gives up a page with one name that it takes for none, such as `a//b`; in a
//! bucket that others use, too, anybody may have made one.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use object_store::path::Path;

/// The server answers listings as the first version of them is: without a way to go on that is not guessed, and from the
/// beginning, whatever was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FirstVersion;

impl fmt::Display for FirstVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "this server lists as the first version of S3 did, and would leave names out: it must know `list-type=2`",
        )
    }
}

impl std::error::Error for FirstVersion {}

/// The page without the names that cannot be ours.
///
/// # Errors
/// [`FirstVersion`].
pub(crate) fn readable(page: Bytes) -> Result<Bytes, FirstVersion> {
    // What is no text is for the client to refuse.
    let Ok(text) = std::str::from_utf8(&page) else { return Ok(page) };
    if is_of_the_first_version(text) {
        return Err(FirstVersion);
    }
    // Folders are asked for so that what lies in them is left out; their names are of no use.
    let files = without(text, "CommonPrefixes", |_| true);
    let mut skipped = 0_u64;
    let ours = without(files.as_deref().unwrap_or(text), "Contents", |entry| {
        let key = element(entry, "Key");
        let Some(path) = key.as_ref().and_then(|key| Path::parse(key.as_ref()).ok()) else {
            skipped += 1;
            return true;
        };
        // Read without the slash at its end, what stands for a folder would have the name of a blob.
        key.is_some_and(|key| key != path.as_ref())
    });
    if skipped > 0 {
        tracing::warn!(skipped, "there are objects beside the blobs whose names cannot be read: they are left alone");
    }
    match ours.or(files) {
        Some(text) => Ok(text.into()),
        None => Ok(page),
    }
}

fn is_of_the_first_version(text: &str) -> bool {
    let ends_open = element(text, "IsTruncated").is_some_and(|value| value.trim() == "true")
        && !text.contains("<NextContinuationToken>");
    let has_marker = text.contains("<Marker>") || text.contains("<Marker/>") || text.contains("<Marker />");
    ends_open || (has_marker && !text.contains("<KeyCount>"))
}

/// The text without those elements that are unwanted; `None` where all are wanted.
fn without(text: &str, name: &str, mut is_unwanted: impl FnMut(&str) -> bool) -> Option<String> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut wanted: Option<String> = None;
    let mut rest = text;
    // What is not in `wanted` yet, where there is such.
    let mut pending = text;
    while let Some((_, inner)) = rest.split_once(&begin) {
        let Some((inside, behind)) = inner.split_once(&end) else { break };
        if is_unwanted(inside) {
            let kept_bytes = pending.len() - inner.len() - begin.len();
            wanted.get_or_insert_default().push_str(pending.get(..kept_bytes).unwrap_or_default());
            pending = behind;
        }
        rest = behind;
    }
    wanted.map(|wanted| wanted + pending)
}

/// The text of the first element of this name; `None` where there is none, or where it is none that can be read.
fn element<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once('<')?;
    if !content.contains('&') {
        return Some(Cow::Borrowed(content));
    }
    let mut parts = content.split('&');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (reference, rest) = part.split_once(';')?;
        plain.push(match reference {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = reference.strip_prefix('#')?;
                let number = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)?
            }
        });
        plain.push_str(rest);
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(entries: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>\
             {entries}</ListBucketResult>"
        )
    }

    fn entry(key: &str) -> String {
        format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>")
    }

    fn read(text: String) -> Result<String, FirstVersion> {
        readable(text.into()).map(|page| String::from_utf8(page.to_vec()).unwrap())
    }

    #[test]
    fn names_that_no_client_reads_are_left_out_and_all_others_stay() {
        let (ours, apostrophe) = (entry("p/00"), entry("it&#39;s/&amp;/00"));
        let foreign = [entry("p//x"), entry("p/../x"), entry("p/&#x1;"), entry("p/&unknown;"), entry("p/")];
        let folder = "<CommonPrefixes><Prefix>p//</Prefix></CommonPrefixes>".to_owned();
        let [first, second, third, fourth, fifth] = &foreign;
        let mixed: String = [first, &ours, second, third, &apostrophe, &folder, fourth, fifth]
            .into_iter()
            .map(String::as_str)
            .collect();
        assert_eq!(read(page(&mixed)).unwrap(), page(&format!("{ours}{apostrophe}")));
        assert_eq!(read(page(&folder)).unwrap(), page(""));
        let plain = page(&ours);
        assert_eq!(read(plain.clone()).unwrap(), plain);
    }

    #[test]
    fn what_is_no_page_is_left_to_the_client() {
        for text in ["", "<html>", "<Contents><Key>a//b", "<Contents>"] {
            assert_eq!(read(text.to_owned()).unwrap(), text);
        }
        let bytes = Bytes::from_static(&[0xff, 0xfe]);
        assert_eq!(readable(bytes.clone()).unwrap(), bytes);
    }

    #[test]
    fn a_listing_of_the_first_version_is_refused() {
        for text in [
            "<ListBucketResult><Marker></Marker><IsTruncated>false</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Marker/><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>x</NextMarker></ListBucketResult>",
        ] {
            assert_eq!(read(text.to_owned()), Err(FirstVersion), "{text}");
        }
        let more = "<R><KeyCount>1</KeyCount><IsTruncated>true</IsTruncated>\
                    <NextContinuationToken>x</NextContinuationToken></R>";
        assert_eq!(read(more.to_owned()).unwrap(), more);
    }
}
