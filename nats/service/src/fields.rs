//! Header fields: lists over one line or several (RFC 9110 §5.3, §5.6.1), fields that come once, entity tags and
//! qualities. There is one reader of lists, so that all fields that are lists are read alike.

use axum::http::{HeaderMap, HeaderName};

use crate::problem::Problem;

/// Members that one list may have.
const MEMBERS_MAX: usize = 64;
/// Thousandths: a quality of 1 (RFC 9110 §12.4.2).
const QUALITY_MAX: u16 = 1_000;

fn unreadable(name: &HeaderName) -> Problem {
    Problem::malformed(format!("the header field {name} has characters that are not visible ASCII"))
}

/// The members of a list, over all lines of this name; members that are empty are left out.
pub fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Vec<&'a str>, Problem> {
    let mut members = Vec::new();
    for line in headers.get_all(name) {
        let line = line.to_str().map_err(|_| unreadable(name))?;
        members.extend(split(line, ',').into_iter().filter(|member| !member.is_empty()));
        if members.len() > MEMBERS_MAX {
            return Err(Problem::malformed(format!("{name} has at most {MEMBERS_MAX} members")));
        }
    }
    Ok(members)
}

/// The value of a field that is no list; refused where it comes twice, as two readers could each believe another one.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut lines = headers.get_all(name).into_iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(Problem::malformed(format!("the header field {name} is given twice")));
    }
    first.map(|value| value.to_str().map(str::trim).map_err(|_| unreadable(name))).transpose()
}

/// Splits at a separator, but not within quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            found if found == separator && !is_quoted => {
                parts.push(text[start..at].trim());
                start = at + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// The parameter of a member (`wait` of `respond-async;wait=7`), without its quotes.
pub fn parameter<'a>(member: &'a str, name: &str) -> Option<&'a str> {
    split(member, ';').into_iter().find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// What `If-Match` and `If-None-Match` ask of an entity tag (RFC 9110 §8.8.3, §13.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: whatever is there.
    Any,
    Each(Vec<Tag>),
}

/// An entity tag, without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub is_weak: bool,
    pub text: String,
}

/// The entity tags of this field; `None` if it is not there. One that is there and empty names no tag, so nothing
/// matches it: it is no call without a condition.
pub fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let members = list(headers, name)?;
    if !headers.contains_key(name) {
        return Ok(None);
    }
    if members == ["*"] {
        return Ok(Some(Tags::Any));
    }
    let tag = |member: &&str| {
        let (is_weak, rest) = member.strip_prefix("W/").map_or((false, *member), |rest| (true, rest));
        let bare = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(rest);
        Tag { is_weak, text: bare.to_owned() }
    };
    Ok(Some(Tags::Each(members.iter().map(tag).collect())))
}

/// How much an `Accept` field wants this media type, in thousandths; `None` if it does not name it.
pub fn quality(accepted: &[&str], media_type: &str) -> Option<u16> {
    let is_it =
        |member: &&&str| split(member, ';').first().is_some_and(|kind| kind.eq_ignore_ascii_case(media_type));
    let member = accepted.iter().find(is_it)?;
    Some(parameter(member, "q").map_or(QUALITY_MAX, thousandths))
}

/// `0.25` in thousandths; what is no quality is none.
fn thousandths(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: Option<u16> = format!("{part:0<3}").parse().ok().filter(|_| part.len() <= 3);
    match (whole, part) {
        ("1", Some(0)) => QUALITY_MAX,
        ("0", Some(part)) => part,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};

    use super::*;

    fn lines(name: &HeaderName, lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn a_list_is_the_same_in_one_line_and_in_several() {
        let name = HeaderName::from_static("log-position");
        for given in [&["0:1,1:2"][..], &["0:1", "1:2"], &["0:1 , ,1:2,"], &["", "0:1", ",1:2"]] {
            assert_eq!(list(&lines(&name, given), &name).unwrap(), ["0:1", "1:2"], "{given:?}");
        }
        assert_eq!(
            list(&lines(&name, &["\"a,b\", \"c\\\",d\""]), &name).unwrap(),
            ["\"a,b\"", "\"c\\\",d\""]
        );
        assert_eq!(single(&lines(&name, &["a", "a"]), &name).unwrap_err().code(), "malformed");
        assert_eq!(single(&lines(&name, &[]), &name).unwrap(), None);
    }

    #[test]
    fn entity_tags_are_weak_or_strong_one_or_several_or_any() {
        let name = header::IF_MATCH;
        let tag = |is_weak, text: &str| Tag { is_weak, text: text.to_owned() };
        let given = lines(&name, &["W/\"0:1\"", "\"0:2\", 0:3"]);
        let each = vec![tag(true, "0:1"), tag(false, "0:2"), tag(false, "0:3")];
        assert_eq!(tags(&given, &name).unwrap(), Some(Tags::Each(each)));
        assert_eq!(tags(&lines(&name, &["*"]), &name).unwrap(), Some(Tags::Any));
        assert_eq!(tags(&lines(&name, &[]), &name).unwrap(), None);
        for empty in ["", " ", ","] {
            assert_eq!(
                tags(&lines(&name, &[empty]), &name).unwrap(),
                Some(Tags::Each(Vec::new())),
                "{empty:?}"
            );
        }
    }

    #[test]
    fn what_is_accepted_with_no_quality_is_not_accepted() {
        let accepted = ["a/b;q=0", "c/d; Q=0.5", "e/f", "g/h;q=1.000", "i/j;q=7"];
        let told = ["a/b", "c/d", "E/F", "g/h", "i/j", "k/l"].map(|kind| quality(&accepted, kind));
        assert_eq!(told, [Some(0), Some(500), Some(1_000), Some(1_000), Some(0), None]);
    }
}
