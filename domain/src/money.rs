//! Money in whole minor units; there is no fraction to lose.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Amounts are below this many minor units, so that sums of an order's lines cannot leave `i64`.
pub const AMOUNT_LIMIT: i64 = 1_000_000_000_000_000;

/// An ISO 4217 currency code: three capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(extend("pattern" = "^[A-Z]{3}$"))]
pub struct Currency([u8; 3]);

impl Currency {
    /// Won, which has no smaller unit.
    pub const WON: Self = Self(*b"KRW");

    /// Whether people pay with it today: a code of ISO 4217's list one that is neither a metal, a fund, for tests, nor
    /// replaced by another. What the log has in other codes still reads.
    pub fn is_in_use(self) -> bool {
        self.listed().is_some_and(|listed| {
            !listed.is_special() && !listed.is_fund() && listed.is_superseded().is_none()
        })
    }

    /// Digits behind the point; two where the list does not say.
    fn decimals(self) -> u32 {
        self.listed().and_then(iso_currency::Currency::exponent).map_or(2, u32::from)
    }

    fn listed(self) -> Option<iso_currency::Currency> {
        iso_currency::Currency::from_code(std::str::from_utf8(&self.0).ok()?)
    }
}

/// A text that is no currency code.
#[derive(Debug, thiserror::Error)]
#[error("a currency is three capital letters (ISO 4217), for example KRW")]
pub struct InvalidCurrency;

impl FromStr for Currency {
    type Err = InvalidCurrency;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let letters: [u8; 3] = text.as_bytes().try_into().map_err(|_| InvalidCurrency)?;
        if letters.iter().all(u8::is_ascii_uppercase) { Ok(Self(letters)) } else { Err(InvalidCurrency) }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.to_string()
    }
}

impl TryFrom<String> for Currency {
    type Error = InvalidCurrency;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// An amount of a currency in its minor units (won for KRW, cents for EUR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    pub amount: i64,
    pub currency: Currency,
}

impl Money {
    /// The sum of `quantity × unit price` over the lines; `None` if it reaches [`AMOUNT_LIMIT`].
    pub fn total(currency: Currency, lines: impl IntoIterator<Item = (u32, i64)>) -> Option<Self> {
        let sum = lines.into_iter().try_fold(0_i64, |sum, (quantity, unit_price)| {
            let line = unit_price.checked_mul(i64::from(quantity))?;
            sum.checked_add(line).filter(|sum| *sum < AMOUNT_LIMIT)
        })?;
        Some(Self { amount: sum, currency })
    }
}

impl fmt::Display for Money {
    /// As people write it: `9,000,000 KRW`, `12.50 EUR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.currency.decimals();
        let unit = 10_u64.pow(decimals);
        let (whole, rest) = (self.amount.unsigned_abs() / unit, self.amount.unsigned_abs() % unit);
        let digits = whole.to_string();
        if self.amount < 0 {
            f.write_str("-")?;
        }
        for (index, digit) in digits.chars().enumerate() {
            let separator = if index > 0 && (digits.len() - index).is_multiple_of(3) { "," } else { "" };
            write!(f, "{separator}{digit}")?;
        }
        if decimals > 0 {
            write!(f, ".{rest:0width$}", width = decimals as usize)?;
        }
        write!(f, " {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_as_people_write_it() {
        let shown =
            |amount, currency: &str| Money { amount, currency: currency.parse().unwrap() }.to_string();
        assert_eq!(shown(9_000_000, "KRW"), "9,000,000 KRW");
        assert_eq!(shown(123_456_789, "EUR"), "1,234,567.89 EUR");
        assert_eq!(shown(-5, "USD"), "-0.05 USD");
        assert_eq!(shown(1_000, "KWD"), "1.000 KWD");
        assert_eq!(shown(0, "JPY"), "0 JPY");
        assert_eq!(shown(1_500, "XPF"), "1,500 XPF");
        assert_eq!(shown(150, "ZZZ"), "1.50 ZZZ");
    }

    #[test]
    fn a_total_that_reaches_the_limit_is_refused_and_never_wraps() {
        let krw: Currency = "KRW".parse().unwrap();
        assert_eq!(Money::total(krw, [(2, 450), (1, 100)]).unwrap().amount, 1_000);
        assert!(Money::total(krw, [(9_999, AMOUNT_LIMIT - 1)]).is_none());
        assert!(Money::total(krw, [(1, AMOUNT_LIMIT - 1), (1, 1)]).is_none());
        assert!(Money::total(krw, [(u32::MAX, i64::MAX)]).is_none());
    }

    #[test]
    fn only_money_that_people_pay_with_today_is_in_use() {
        let is_in_use = |code: &str| code.parse::<Currency>().unwrap().is_in_use();
        for code in ["KRW", "EUR", "USD", "XPF", "XOF", "XAF", "XCD", "KWD", "CLP"] {
            assert!(is_in_use(code), "{code}");
        }
        for code in ["ZZZ", &"X".repeat(3), "XTS", "XAU", "DEM", "HRK", "XDR", "CHE", "USN"] {
            assert!(!is_in_use(code), "{code}");
        }
    }

    #[test]
    fn a_currency_is_three_capital_letters() {
        assert!("KRW".parse::<Currency>().is_ok());
        for wrong in ["", "krw", "KR", "KRWW", "K₩W", "원"] {
            assert!(wrong.parse::<Currency>().is_err(), "{wrong}");
        }
    }
}
