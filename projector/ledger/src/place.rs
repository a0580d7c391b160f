//! Where a ledger is: a file or a database, read from its URL; and which of its failures may pass.

use std::path::{Path, PathBuf};

use crate::LedgerError;

/// Primary result codes of `SQLite` that may pass: busy, locked, an error of the disk, a full disk.
const SQLITE_PASSING: [u32; 4] = [5, 6, 10, 13];
/// Classes of `SQLSTATE` that may pass: the connection, a read-only stand-by, a conflict, resources, a lock, an
/// operator's intervention, the system.
const POSTGRES_PASSING: [&str; 7] = ["08", "25", "40", "53", "55", "57", "58"];

/// Where a ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An `SQLite` file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server,
}

impl Place {
    /// Reads `sqlite:FILE` or `postgres://…`.
    pub fn of(url: &str) -> Result<Self, LedgerError> {
        let unusable = |why: &str| LedgerError::Unusable { place: shown(url), why: why.to_owned() };
        if let Some(file) = url.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file).split('?').next().unwrap_or_default();
            if file.is_empty() || file == ":memory:" {
                return Err(unusable("it names no file, and would be gone with the process: sqlite:FILE"));
            }
            return Ok(Self::File(file.into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Server);
        }
        Err(unusable("a ledger is sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE"))
    }

    /// Looks whether a file could be made here, so that the fault is told by its name.
    pub(crate) fn check(&self, url: &str) -> Result<(), LedgerError> {
        let Self::File(file) = self else { return Ok(()) };
        let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let why = if file.is_dir() {
            "it is a folder".to_owned()
        } else if !folder.is_dir() {
            format!("there is no folder {}", folder.display())
        } else {
            return Ok(());
        };
        Err(LedgerError::Unusable { place: shown(url), why })
    }
}

/// A ledger's URL without its user, its password and its parameters.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once(':') else { return "(a URL without a scheme)".to_owned() };
    let (slashes, rest) = rest.strip_prefix("//").map_or(("", rest), |rest| ("//", rest));
    // A password may hold any character, also a slash that should have been encoded.
    format!("{scheme}:{slashes}{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
}

impl LedgerError {
    /// Whether the same may succeed later without anybody changing the settings: the database is away, or busy.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Sql(error) => is_passing(error),
            Self::Log(_) | Self::Overtaken { .. } | Self::Late => true,
            Self::Unreadable(_)
            | Self::OtherLog { .. }
            | Self::Shortened(_)
            | Self::Unusable { .. }
            | Self::Missing { .. } => false,
        }
    }
}

fn is_passing(error: &sqlx::Error) -> bool {
    if let Some(database) = error.as_database_error() {
        let code = database.code().unwrap_or_default();
        // SQLSTATE has five characters; SQLite's extended codes are numbers of at most four.
        return match code.parse::<u32>() {
            Ok(number) if code.len() < 5 => SQLITE_PASSING.contains(&(number & 0xff)),
            Ok(_) | Err(_) => POSTGRES_PASSING.iter().any(|class| code.starts_with(class)),
        };
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_user_and_no_password() {
        for (url, is) in [
            ("postgres://shop:secret@db.example:5432/books", "postgres://db.example:5432/books"),
            ("postgres://shop:se@cr/et@db/books?password=secret", "postgres://db/books"),
            ("postgres://db/books", "postgres://db/books"),
            ("sqlite:ledger.db?mode=rwc", "sqlite:ledger.db"),
            ("mysql://root:secret@db/books", "mysql://db/books"),
            ("secret", "(a URL without a scheme)"),
        ] {
            assert_eq!(shown(url), is);
        }
    }

    #[test]
    fn a_place_is_a_file_or_a_server_and_nothing_else() {
        assert_eq!(Place::of("sqlite:a/ledger.db?mode=rwc").unwrap(), Place::File("a/ledger.db".into()));
        assert_eq!(Place::of("sqlite:///var/ledger.db").unwrap(), Place::File("/var/ledger.db".into()));
        assert_eq!(Place::of("postgres://db/books").unwrap(), Place::Server);
        for url in ["mysql://u:secret@db/books", "ledger.db", "sqlite:", "sqlite::memory:", "postgres:db"] {
            let said = Place::of(url).unwrap_err().to_string();
            assert!(said.contains("sqlite:FILE") && !said.contains("secret"), "{said}");
        }
    }
}
