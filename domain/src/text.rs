//! What callers may write: one rule for every text and one for every id. It holds for what comes in from now on; what
//! the log has is read whatever it holds.

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The longest text field, in characters.
pub const TEXT_CHARS_MAX: usize = 500;
/// The longest id, in characters: in a body and in a token.
pub const ID_CHARS_MAX: usize = 200;
/// The longest mail address, in bytes (RFC 5321 §4.5.3.1.3, without the angle brackets).
pub const EMAIL_BYTES_MAX: usize = 254;
/// The digits of a telephone number (at most: ITU-T E.164 §6.2).
const PHONE_DIGITS_MIN: usize = 5;
const PHONE_DIGITS_MAX: usize = 15;
/// What may be between the digits of a telephone number.
const PHONE_SEPARATORS: [char; 5] = [' ', '-', '.', '(', ')'];
/// The characters that are letters or symbols to Unicode, and that no reader sees: fillers, and Braille's blank.
const BLANKS: [char; 5] = ['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    #[error("must have 1 to {max} characters, and has {has}")]
    Length { max: usize, has: usize },
    #[error("must not contain control characters")]
    Control,
    #[error("must not contain characters that change the direction of the text")]
    Direction,
    #[error("must have a visible character")]
    Invisible,
    #[error("must not be . or .., which no path can name")]
    PathSegment,
    #[error("must be a telephone number of {PHONE_DIGITS_MIN} to {PHONE_DIGITS_MAX} digits")]
    Phone,
    #[error("must be a mail address, such as name@example.org")]
    Email,
}

/// Checks a text that people read.
pub fn check_text(text: &str) -> Result<(), TextFault> {
    check(text, TEXT_CHARS_MAX)
}

/// Checks an id: of a customer, a store, a rider, an item.
pub fn check_id(id: &str) -> Result<(), TextFault> {
    check(id, ID_CHARS_MAX)?;
    if id.chars().any(turns_text) {
        return Err(TextFault::Direction);
    }
    if matches!(id, "." | "..") { Err(TextFault::PathSegment) } else { Ok(()) }
}

/// Checks a telephone number: digits, what people write between them, and a `+` before them if it is international.
pub fn check_phone(number: &str) -> Result<(), TextFault> {
    let local = number.strip_prefix('+').unwrap_or(number);
    let digits = local.chars().filter(char::is_ascii_digit).count();
    let reads = local.chars().all(|c| c.is_ascii_digit() || PHONE_SEPARATORS.contains(&c));
    let fits = reads
        && (PHONE_DIGITS_MIN..=PHONE_DIGITS_MAX).contains(&digits)
        && number.len() <= 2 * PHONE_DIGITS_MAX;
    if fits { Ok(()) } else { Err(TextFault::Phone) }
}

fn check(text: &str, max: usize) -> Result<(), TextFault> {
    let has = text.chars().count();
    if !(1..=max).contains(&has) {
        return Err(TextFault::Length { max, has });
    }
    if text.chars().any(breaks_lines) {
        return Err(TextFault::Control);
    }
    if text.chars().any(is_visible) { Ok(()) } else { Err(TextFault::Invisible) }
}

/// Control characters, and what separates lines and paragraphs.
fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The `Bidi_Control` characters (Unicode Standard Annex 9): with them, a text reads other than it is.
const fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_visible(c: char) -> bool {
    match c.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Number
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol => !BLANKS.contains(&c),
        GeneralCategoryGroup::Mark | GeneralCategoryGroup::Separator | GeneralCategoryGroup::Other => false,
    }
}

/// A customer's name as it may stand in a message to anybody: short, without what a mail or messenger program makes a
/// link or a telephone number of; `None` if nothing is left of it.
pub fn name_in_message(name: &str) -> Option<String> {
    let mut kept = String::new();
    for c in name.chars() {
        let is_kept = match c.general_category_group() {
            GeneralCategoryGroup::Letter => !BLANKS.contains(&c),
            GeneralCategoryGroup::Mark => !kept.is_empty(),
            GeneralCategoryGroup::Number
            | GeneralCategoryGroup::Punctuation
            | GeneralCategoryGroup::Symbol
            | GeneralCategoryGroup::Separator
            | GeneralCategoryGroup::Other => matches!(c, '\'' | '’' | '-' | '·'),
        };
        if is_kept {
            kept.push(c);
        } else if !kept.is_empty() && !kept.ends_with(' ') {
            kept.push(' ');
        }
    }
    let short: String = kept.chars().take(NAME_IN_MESSAGE_CHARS_MAX).collect();
    let short = short.trim_end();
    short.chars().any(is_visible).then(|| short.to_owned())
}

/// The longest name in a message, in characters.
const NAME_IN_MESSAGE_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_any_script_are_taken_and_what_no_reader_sees_is_not() {
        for good in ["홍길동", "\u{1112}\u{1169}\u{11bc}", "Иван", "محمد", "👩‍🍳", "a", "नमस्ते", "-", " x "]
        {
            assert_eq!(check_text(good), Ok(()), "{good}");
        }
        for invisible in
            [" ", "\u{200b}", "\u{a0}\u{3000}", "\u{3164}", "\u{2800}", "\u{ad}", "\u{feff}", "\u{301}"]
        {
            assert_eq!(check_text(invisible), Err(TextFault::Invisible), "{invisible:?}");
            assert_eq!(check_id(invisible), Err(TextFault::Invisible), "{invisible:?}");
        }
        for control in ["a\nb", "a\u{0}", "\u{7f}a", "a\u{9b}b", "a\u{2028}b"] {
            assert_eq!(check_text(control), Err(TextFault::Control), "{control:?}");
        }
        for turned in ["a\u{202e}b", "\u{2066}a", "a\u{200f}", "a\u{61c}"] {
            assert_eq!(check_id(turned), Err(TextFault::Direction), "{turned:?}");
            assert_eq!(check_text(turned), Ok(()), "a text may be of both directions: {turned:?}");
        }
    }

    #[test]
    fn an_id_is_short_and_a_path_can_name_it() {
        assert_eq!(check_id(&"가".repeat(ID_CHARS_MAX)), Ok(()));
        let too_long = TextFault::Length { max: ID_CHARS_MAX, has: ID_CHARS_MAX + 1 };
        assert_eq!(check_id(&"가".repeat(ID_CHARS_MAX + 1)), Err(too_long));
        assert_eq!(
            (check_id("."), check_id("..")),
            (Err(TextFault::PathSegment), Err(TextFault::PathSegment))
        );
        assert_eq!((check_id("..."), check_id("a.b"), check_text("..")), (Ok(()), Ok(()), Ok(())));
    }

    #[test]
    fn telephone_numbers_are_taken_as_people_write_them() {
        for good in ["010-1234-5678", "+82 10 1234 5678", "(02) 123-4567", "112.34", "+442071838750"] {
            assert_eq!(check_phone(good), Ok(()), "{good}");
        }
        for wrong in
            ["", "call me", "1234", "1234567890123456", "010+1234567", "０１０１２３４５", "12345;x", "+"]
        {
            assert_eq!(check_phone(wrong), Err(TextFault::Phone), "{wrong}");
        }
    }

    #[test]
    fn a_name_in_a_message_is_short_and_holds_no_link() {
        let name = |text: &str| name_in_message(text);
        assert_eq!(name("홍길동").as_deref(), Some("홍길동"));
        assert_eq!(name("J.R. O'Neill-Kim").as_deref(), Some("J R O'Neill-Kim"));
        assert_eq!(name("Win! https://evil.example/x?y=1").as_deref(), Some("Win https evil example x y"));
        assert_eq!(name("call 010-1234-5678 now").as_deref(), Some("call - - now"));
        assert_eq!(name("홍\u{202e}길동").as_deref(), Some("홍 길동"));
        assert_eq!((name("12345"), name("\u{200b}")), (None, None));
        assert_eq!(name(&"가".repeat(500)).map(|name| name.chars().count()), Some(NAME_IN_MESSAGE_CHARS_MAX));
    }
}
