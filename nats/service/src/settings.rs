//! Settings: a flag beats the environment, the environment beats the file, the file beats the default.
//!
//! One library (clap) knows every setting: a configuration file merely replaces the flags' defaults, so `--help`
//! documents them all and a bad value is refused by its flag's name wherever it came from.

use std::{
    ffi::OsString,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, Command, Parser};
use nats::{
    Connection, Durability, EventLog, Identity,
    connection::without_secrets,
    topology::{
        MissingEvents, OldOrders, PARTITION_BYTES_DEFAULT, PARTITIONS_DEFAULT, PARTITIONS_MAX, Streams,
        Topology,
    },
};
use rustix::{fs::Mode, process::umask};

const CONFIG_FLAG: &str = "--config";
const CONFIG_VARIABLE: &str = "TWELVE_CONFIG";

/// Which log a service works on.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The log")]
pub struct LogSettings {
    /// Partitions of the log; fixed when the log is made. On two cores, one takes the most orders
    #[arg(long, env = "TWELVE_PARTITIONS", value_name = "N", default_value_t = PARTITIONS_DEFAULT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(PARTITIONS_MAX)))]
    pub partitions: u16,
    /// Replicas of each partition, in a cluster of at least as many servers
    #[arg(long, env = "TWELVE_REPLICAS", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
    /// Bytes that one partition may hold; a full partition refuses new events and forgets none. A log that is there is
    /// enlarged, never made smaller
    #[arg(long, env = "TWELVE_PARTITION_BYTES_MAX", value_name = "BYTES", default_value_t = PARTITION_BYTES_DEFAULT,
          value_parser = clap::value_parser!(i64).range(1_048_576..))]
    pub partition_bytes_max: i64,
    /// Who makes the log's streams, buckets and work queues [default: make; with --nats-nkey: verify]
    #[arg(long, env = "TWELVE_STREAMS", value_enum, value_name = "WHO")]
    pub streams: Option<Streams>,
    /// What becomes of orders that are over; a log that was made to keep them cannot be made to archive them later
    #[arg(long, env = "TWELVE_OLD_ORDERS", value_enum, value_name = "WHAT", default_value_t = OldOrders::Keep)]
    pub old_orders: OldOrders,
    /// What is said of a log that keeps everything and lacks events: a stream that was edited, or put back from an
    /// incomplete backup
    #[arg(long, env = "TWELVE_MISSING_EVENTS", value_enum, value_name = "WHAT", default_value_t = MissingEvents::Refuse)]
    pub missing_events: MissingEvents,
    #[command(flatten)]
    pub identity: Identity,
}

/// Where the log is, for a service that does not bring its own server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The nats-server")]
pub struct ServerSettings {
    /// The nats-server to use (2.15 or newer); of a cluster, several, separated by commas
    #[arg(
        long,
        env = "TWELVE_NATS",
        hide_env_values = true,
        value_name = "URL,…",
        default_value = "nats://127.0.0.1:4222"
    )]
    pub nats: String,
    /// What an acknowledgement of that server is worth: `fsync` if it runs with `sync_interval: always`
    #[arg(long, env = "TWELVE_DURABILITY", value_enum, default_value_t = Durability::Memory)]
    pub durability: Durability,
}

impl LogSettings {
    /// The log as declared.
    pub fn topology(&self) -> Topology {
        Topology {
            partitions: self.partitions,
            replicas: usize::from(self.replicas),
            partition_bytes_max: self.partition_bytes_max,
            streams: self.streams.unwrap_or(if self.identity.nats_nkey.is_some() {
                Streams::Verify
            } else {
                Streams::Make
            }),
            old_orders: self.old_orders,
            missing_events: self.missing_events,
        }
    }

    /// Connects to `url` as `name` and opens the log there.
    pub async fn open(&self, url: &str, name: &str, durability: Durability) -> anyhow::Result<EventLog> {
        let connection = Connection::open_as(url, name, &self.identity).await?;
        let opened = EventLog::open(connection, self.topology(), durability).await;
        opened.with_context(|| format!("the log at {} cannot be used", without_secrets(url)))
    }

    /// The same settings for a log that has to be there: what is missing is an error, and is not made.
    #[must_use]
    pub fn existing(&self) -> Self {
        Self { streams: Some(Streams::Verify), ..self.clone() }
    }
}

/// Reads HOST:PORT, where the host is a name or an address; a name that has several addresses is the first of IPv4.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| format!("not a HOST:PORT of this machine, such as localhost:8080 ({error})"))?
        .collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| "the host has no address".to_owned())
}

/// Reads an URL that calls by HTTP can be made to.
pub fn http_url(text: &str) -> Result<String, String> {
    let wanted = "give one such as https://HOST or http://HOST:PORT/PATH";
    let url = reqwest::Url::parse(text).map_err(|error| format!("not an URL ({error}); {wanted}"))?;
    match url.scheme() {
        "http" | "https" => Ok(text.to_owned()),
        scheme => Err(format!("not an URL of HTTP but of {scheme}; {wanted}")),
    }
}

/// Reads the settings of this process; prints help or the fault and ends the process where clap would.
///
/// From then on the files that it makes, and those of a server that it starts, are for its own user alone.
pub fn parse<T: Parser>() -> anyhow::Result<T> {
    umask(Mode::RWXG | Mode::RWXO);
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = T::command();
    if let Some(path) = config_path(&arguments) {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        command = with_file(command, &text)
            .with_context(|| format!("the configuration file {} is not usable", path.display()))?;
    }
    let matches = command.get_matches_from(arguments);
    T::from_arg_matches(&matches).map_err(|error| error.exit())
}

fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == CONFIG_FLAG {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from)
}

/// Makes the file's values the defaults of the flags they name.
fn with_file(mut command: Command, text: &str) -> anyhow::Result<Command> {
    let table: toml::Table = text.parse()?;
    for (key, value) in table {
        let text =
            plain(&value).with_context(|| format!("setting {key}: give a text, a number or a list"))?;
        let id = key.replace('-', "_");
        let (changed, known) = with_default(command, &id, &text);
        anyhow::ensure!(known, "there is no setting called {key:?}; --help lists them");
        command = changed;
    }
    Ok(command)
}

fn with_default(mut command: Command, id: &str, value: &str) -> (Command, bool) {
    let mut known = false;
    if command.get_arguments().any(|argument| argument.get_id() == id) {
        let value = value.to_owned();
        command = command.mut_arg(id, |argument| argument.required(false).default_value(value));
        known = true;
    }
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let mut found = false;
        command = command.mut_subcommand(name, |sub| {
            let (sub, known) = with_default(sub, id, value);
            found = known;
            sub
        });
        known |= found;
    }
    (command, known)
}

fn plain(value: &toml::Value) -> anyhow::Result<String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<anyhow::Result<Vec<_>>>()?.join(","),
        toml::Value::Datetime(_) | toml::Value::Table(_) => anyhow::bail!("not a plain value"),
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    #[derive(Parser, Debug)]
    struct Sample {
        #[arg(long, env = "SAMPLE_TEST_LISTEN", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        #[arg(long, value_delimiter = ',', default_value = "a")]
        roles: Vec<String>,
    }

    fn read(file: &str, arguments: &[&str]) -> anyhow::Result<Sample> {
        let command = with_file(Sample::command(), file)?;
        let arguments = std::iter::once("sample").chain(arguments.iter().copied());
        Ok(Sample::from_arg_matches(&command.try_get_matches_from(arguments)?)?)
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        assert_eq!(read("", &[]).unwrap().listen.port(), 8080);
        assert_eq!(read("listen = '0.0.0.0:9'", &[]).unwrap().listen.port(), 9);
        assert_eq!(read("listen = '0.0.0.0:9'", &["--listen", "0.0.0.0:7"]).unwrap().listen.port(), 7);
        assert_eq!(read("roles = ['a', 'b']", &[]).unwrap().roles, ["a", "b"]);
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (text, is) in [
            ("localhost:8080", "127.0.0.1:8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(address(text), Ok(is.parse().unwrap()), "{text}");
        }
        for text in ["localhost", ":8080", "8080", "localhost:", "localhost:80800", "http://localhost:8080"] {
            assert!(address(text).unwrap_err().contains("HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn an_url_that_no_call_can_be_made_to_is_refused() {
        for text in ["http://localhost", "https://shop.example:8443/keys?set=1", "http://[::1]:4317"] {
            assert_eq!(http_url(text), Ok(text.to_owned()));
        }
        for text in
            ["", "nonsense", "/etc/passwd", "localhost:80", "ftp://x", "http://", "https://:80", "http://a b"]
        {
            assert!(http_url(text).unwrap_err().contains("https://HOST"), "{text}");
        }
    }

    #[test]
    fn a_bad_setting_is_refused_by_its_name() {
        let unknown = read("lisen = 'x'", &[]).unwrap_err().to_string();
        assert!(unknown.contains("lisen"), "{unknown}");
        let bad = read("listen = 'nowhere'", &[]).unwrap_err().to_string();
        assert!(bad.contains("--listen") && bad.contains("nowhere"), "{bad}");
    }
}
