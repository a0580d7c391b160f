//! The ledger's tables. Bookings and the checkpoint that says so are written in one transaction, so that each event is
//! booked once however often it is read, and by however many processes.

use std::time::Duration;

use domain::Position;
use futures::TryStreamExt;
use nats::follow::PartitionInfo;
use sqlx::{
    Any, AnyPool, Row, Transaction,
    any::{AnyPoolOptions, AnyRow},
};

use crate::{
    Booking, Entry, LedgerError,
    book::PROVIDER,
    place::{Place, shown},
};

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Connections to a database that takes several.
const CONNECTIONS_MAX: u32 = 4;

const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS ledger_checkpoints (
        part INTEGER PRIMARY KEY, log TEXT NOT NULL, sequence BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS ledger_bookings (
        part INTEGER NOT NULL, sequence BIGINT NOT NULL, event_id TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL,
        kind TEXT NOT NULL, reference TEXT, booked_at TEXT NOT NULL, PRIMARY KEY (part, sequence))",
    "CREATE TABLE IF NOT EXISTS ledger_entries (
        part INTEGER NOT NULL, sequence BIGINT NOT NULL, account TEXT NOT NULL, currency TEXT NOT NULL,
        amount BIGINT NOT NULL CHECK (amount <> 0), PRIMARY KEY (part, sequence, account),
        FOREIGN KEY (part, sequence) REFERENCES ledger_bookings (part, sequence))",
    "CREATE INDEX IF NOT EXISTS ledger_bookings_of_orders ON ledger_bookings (order_id)",
];

/// How far a partition is booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// When the partition's stream was made: another time means another log.
    pub log: String,
    pub sequence: u64,
}

/// What one partition is to be booked on to.
#[derive(Clone, Debug)]
pub struct Step {
    pub partition: u16,
    /// The sequence up to which it is booked.
    pub from: u64,
    pub to: u64,
    pub bookings: Vec<Booking>,
}

/// Signed sums of an account in a currency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Balance {
    pub account: String,
    pub currency: String,
    /// Minor units; debits are positive, credits negative.
    pub amount: i64,
}

/// What is booked of one order in an account and a currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub order_id: String,
    pub balance: Balance,
    /// The least that the sum was after any booking, and the most, in minor units.
    pub lowest: i64,
    pub highest: i64,
}

/// The ledger; clones share its connections.
#[derive(Clone)]
pub struct Ledger {
    pool: AnyPool,
}

#[expect(clippy::cast_possible_wrap, reason = "no log has 2^63 events")]
const fn signed(sequence: u64) -> i64 {
    sequence as i64
}

fn unsigned(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or_default()
}

impl Ledger {
    /// Opens the ledger at `sqlite:<file>` or `postgres://…`, and makes its tables if there are none.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let place = Place::of(url)?;
        place.check(url)?;
        let pool = connect(url, &place, "rwc").await?;
        if let Place::File(_) = place {
            for pragma in
                ["journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"]
            {
                sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).execute(&pool).await?;
            }
        }
        for table in TABLES {
            sqlx::query(table).execute(&pool).await?;
        }
        Ok(Self { pool })
    }

    /// Opens a ledger that is there, to read it; makes and changes nothing, and needs no right to.
    pub async fn read(url: &str) -> Result<Self, LedgerError> {
        let place = Place::of(url)?;
        let missing = || LedgerError::Missing { place: shown(url) };
        if let Place::File(file) = &place
            && !file.exists()
        {
            return Err(missing());
        }
        let pool = connect(url, &place, "ro").await?;
        let tables = match place {
            Place::File(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'ledger_checkpoints'",
            Place::Server => "SELECT COUNT(to_regclass('ledger_checkpoints'))",
        };
        let found: i64 = sqlx::query(tables).fetch_one(&pool).await?.try_get(0)?;
        if found == 0 {
            return Err(missing());
        }
        Ok(Self { pool })
    }

    /// How far each of these partitions is booked, 0 for one that is new; refuses another log.
    pub async fn checkpoints(&self, log: &[PartitionInfo]) -> Result<Vec<u64>, LedgerError> {
        // What is refused leaves nothing.
        self.reached(log).await?;
        for (partition, info) in (0_u16..).zip(log) {
            sqlx::query(
                "INSERT INTO ledger_checkpoints (part, log, sequence) VALUES ($1, $2, 0) ON CONFLICT (part) DO NOTHING",
            )
            .bind(i32::from(partition))
            .bind(&info.created)
            .execute(&self.pool)
            .await?;
        }
        self.reached(log).await
    }

    /// As [`Self::checkpoints`], but notes nothing.
    pub async fn reached(&self, log: &[PartitionInfo]) -> Result<Vec<u64>, LedgerError> {
        let mut sequences = Vec::new();
        for (partition, info) in (0_u16..).zip(log) {
            let row = sqlx::query("SELECT log, sequence FROM ledger_checkpoints WHERE part = $1")
                .bind(i32::from(partition))
                .fetch_optional(&self.pool)
                .await?;
            let Some(row) = row else {
                sequences.push(0);
                continue;
            };
            let (made, sequence): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            if made != info.created || unsigned(sequence) > info.last_sequence {
                return Err(LedgerError::OtherLog { partition });
            }
            sequences.push(unsigned(sequence));
        }
        Ok(sequences)
    }

    /// Books all of it and moves the checkpoints on, or nothing.
    pub async fn commit(&self, steps: &[Step]) -> Result<(), LedgerError> {
        let mut transaction = self.pool.begin().await?;
        for step in steps {
            let moved =
                sqlx::query("UPDATE ledger_checkpoints SET sequence = $1 WHERE part = $2 AND sequence = $3")
                    .bind(signed(step.to))
                    .bind(i32::from(step.partition))
                    .bind(signed(step.from))
                    .execute(&mut *transaction)
                    .await?;
            if moved.rows_affected() != 1 {
                let position = Position { partition: step.partition, sequence: step.from };
                return Err(LedgerError::Overtaken { position });
            }
            for booking in &step.bookings {
                book(&mut transaction, booking).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What is booked of a partition after one sequence and up to another, in order.
    pub async fn bookings(
        &self,
        partition: u16,
        after: u64,
        up_to: u64,
    ) -> Result<Vec<Booking>, LedgerError> {
        let rows = sqlx::query(
            "SELECT b.sequence, b.event_id, b.order_id, b.kind, b.reference, b.booked_at, e.account, e.currency, e.amount
             FROM ledger_bookings b LEFT JOIN ledger_entries e ON e.part = b.part AND e.sequence = b.sequence
             WHERE b.part = $1 AND b.sequence > $2 AND b.sequence <= $3 ORDER BY b.sequence, e.account",
        )
        .bind(i32::from(partition))
        .bind(signed(after))
        .bind(signed(up_to))
        .fetch_all(&self.pool)
        .await?;
        let mut bookings: Vec<Booking> = Vec::new();
        for row in rows {
            let position = Position { partition, sequence: unsigned(row.try_get(0)?) };
            if bookings.last().is_none_or(|last| last.position != position) {
                bookings.push(read(&row, position)?);
            }
            if let (Some(last), Some(entry)) = (bookings.last_mut(), entry(&row)?) {
                last.entries.push(entry);
            }
        }
        Ok(bookings)
    }

    /// The sums of all accounts, by account and currency.
    pub async fn balances(&self) -> Result<Vec<Balance>, LedgerError> {
        let rows = sqlx::query(
            "SELECT account, currency, CAST(SUM(amount) AS BIGINT) FROM ledger_entries
             GROUP BY account, currency ORDER BY account, currency",
        )
        .fetch_all(&self.pool)
        .await?;
        let balance = |row: &AnyRow| -> Result<Balance, sqlx::Error> {
            Ok(Balance { account: row.try_get(0)?, currency: row.try_get(1)?, amount: row.try_get(2)? })
        };
        Ok(rows.iter().map(balance).collect::<Result<_, _>>()?)
    }

    /// Whether the database answers, and has the tables.
    pub async fn look(&self) -> Result<(), LedgerError> {
        sqlx::query("SELECT COUNT(*) FROM ledger_checkpoints").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// What is booked of each order of a partition, by order, account and currency; `each` is told of one after the
    /// other.
    pub async fn orders(&self, partition: u16, mut each: impl FnMut(Account)) -> Result<(), LedgerError> {
        let mut rows = sqlx::query(
            "SELECT order_id, account, currency, CAST(SUM(amount) AS BIGINT), CAST(MIN(so_far) AS BIGINT),
                    CAST(MAX(so_far) AS BIGINT) FROM (
                SELECT b.order_id, e.account, e.currency, e.amount, SUM(e.amount) OVER
                       (PARTITION BY b.order_id, e.account, e.currency ORDER BY b.sequence) AS so_far
                FROM ledger_bookings b JOIN ledger_entries e ON e.part = b.part AND e.sequence = b.sequence
                WHERE b.part = $1) AS booked
             GROUP BY order_id, account, currency",
        )
        .bind(i32::from(partition))
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let balance =
                Balance { account: row.try_get(1)?, currency: row.try_get(2)?, amount: row.try_get(3)? };
            let (order_id, lowest, highest) = (row.try_get(0)?, row.try_get(4)?, row.try_get(5)?);
            each(Account { order_id, balance, lowest, highest });
        }
        Ok(())
    }

    /// How many sides are booked in all.
    pub async fn entries(&self) -> Result<u64, LedgerError> {
        let row = sqlx::query("SELECT COUNT(*) FROM ledger_entries").fetch_one(&self.pool).await?;
        Ok(unsigned(row.try_get(0)?))
    }

    #[cfg(test)]
    pub(crate) async fn execute(&self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(&self.pool).await.map(drop)
    }

    /// Closes its connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Connects; a file is opened in this mode of `SQLite`, unless its URL says another.
async fn connect(url: &str, place: &Place, mode: &str) -> Result<AnyPool, LedgerError> {
    sqlx::any::install_default_drivers();
    // A file has one writer; and what is set for a connection holds for it.
    let (connections, url) = match place {
        Place::File(_) if url.contains('?') => (1, url.to_owned()),
        Place::File(_) => (1, format!("{url}?mode={mode}")),
        Place::Server => (CONNECTIONS_MAX, url.to_owned()),
    };
    let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(CONNECT_MAX);
    Ok(options.connect(&url).await?)
}

/// Books an event, or what is held of it; bookings before it are booked.
async fn book(transaction: &mut Transaction<'_, Any>, booking: &Booking) -> Result<(), sqlx::Error> {
    if !booking.is_return() {
        return insert(transaction, booking).await;
    }
    let currency = booking.entries.first().map(|entry| entry.currency.as_str()).unwrap_or_default();
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(e.amount), 0) AS BIGINT) FROM ledger_bookings b
         JOIN ledger_entries e ON e.part = b.part AND e.sequence = b.sequence
         WHERE b.order_id = $1 AND e.account = $2 AND e.currency = $3",
    )
    .bind(booking.order_id.to_string())
    .bind(PROVIDER)
    .bind(currency)
    .fetch_one(&mut **transaction)
    .await?;
    match booking.clone().within(row.try_get(0)?) {
        Some(booking) => insert(transaction, &booking).await,
        None => Ok(()),
    }
}

async fn insert(transaction: &mut Transaction<'_, Any>, booking: &Booking) -> Result<(), sqlx::Error> {
    let (partition, sequence) = (i32::from(booking.position.partition), signed(booking.position.sequence));
    sqlx::query(
        "INSERT INTO ledger_bookings (part, sequence, event_id, order_id, kind, reference, booked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(partition)
    .bind(sequence)
    .bind(&booking.event_id)
    .bind(booking.order_id.to_string())
    .bind(&booking.kind)
    .bind(booking.reference.as_ref())
    .bind(&booking.booked_at)
    .execute(&mut **transaction)
    .await?;
    for entry in &booking.entries {
        sqlx::query(
            "INSERT INTO ledger_entries (part, sequence, account, currency, amount) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(partition)
        .bind(sequence)
        .bind(&entry.account)
        .bind(&entry.currency)
        .bind(entry.amount)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

fn read(row: &AnyRow, position: Position) -> Result<Booking, sqlx::Error> {
    let order_id: String = row.try_get(2)?;
    let order_id = order_id.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Booking {
        position,
        event_id: row.try_get(1)?,
        order_id,
        kind: row.try_get(3)?,
        reference: row.try_get(4)?,
        booked_at: row.try_get(5)?,
        entries: Vec::new(),
    })
}

/// The side of a booking that a row has; `None` if the booking has none.
fn entry(row: &AnyRow) -> Result<Option<Entry>, sqlx::Error> {
    let account: Option<String> = row.try_get(6)?;
    let Some(account) = account else { return Ok(None) };
    Ok(Some(Entry { account, currency: row.try_get(7)?, amount: row.try_get(8)? }))
}
