//! `twelve token`: an issuer for development. A shop that is open has a real one.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aws_lc_rs::signature::Ed25519KeyPair;
use clap::{Args, ValueEnum};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde_json::json;

/// In the data folder: the issuer's keys.
const FOLDER: &str = "auth";
/// Its key set, public.
pub(crate) const JWKS: &str = "jwks.json";
const ISSUER: &str = "twelve-development";
const KEY_ENDING: &str = "ed25519";

/// The largest token file, in bytes.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// A token to call with, in a file: all who may list processes see what is on the command line.
#[derive(Args, Clone, Debug)]
pub(crate) struct TokenFile {
    /// A file with the token to call with, as `twelve token` prints it
    #[arg(long, env = "TWELVE_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl TokenFile {
    /// The token; `None` if no file is named.
    pub(crate) fn read(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let failed = || format!("cannot read the token in {}", path.display());
        let bytes = fs::metadata(path).with_context(failed)?.len();
        anyhow::ensure!(bytes <= TOKEN_BYTES_MAX, "{} is no token: it has {bytes} bytes", path.display());
        Ok(Some(fs::read_to_string(path).with_context(failed)?.trim().to_owned()))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Customer,
    Store,
    Rider,
    Delivery,
    Marketing,
    Operator,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Protect a local run, and call it as a customer:\n  \
    twelve token --id gentleman --role customer > token\n  \
    twelve up --auth-jwks .twelve/auth/jwks.json\n  \
    curl -H \"Authorization: Bearer $(cat token)\" http://127.0.0.1:8080/customers/gentleman/orders")]
pub(crate) struct Settings {
    /// Whom it is for: a customer's id, a rider's id, or any name
    #[arg(long, value_name = "ID")]
    id: String,
    /// What they are
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE,…", required = true)]
    role: Vec<RoleName>,
    /// Stores that they work for
    #[arg(long, value_delimiter = ',', value_name = "STORE,…")]
    store: Vec<String>,
    /// Their mail address, as verified: customers are written to there and nowhere else
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Their telephone number, as verified
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    /// Seconds for which it holds
    #[arg(long, value_name = "S", default_value_t = 28_800, value_parser = clap::value_parser!(i64).range(1..=31_536_000))]
    ttl_s: i64,
    /// For whom it is (`aud`), as --auth-audience has it
    #[arg(long, value_name = "AUDIENCE", default_value = "twelve")]
    audience: String,
    /// Sign with a new key from now on; tokens of the old ones hold until `--forget`
    #[arg(long)]
    rotate: bool,
    /// Take keys out of the set but the newest: tokens that they signed hold no more
    #[arg(long)]
    forget: bool,
    /// Where all data is kept
    #[arg(long, env = "TWELVE_DATA", value_name = "DIR", default_value = ".twelve")]
    data: PathBuf,
}

/// Issues a token and prints it.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let folder = settings.data.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut keys = keys(&folder)?;
    if keys.is_empty() || settings.rotate {
        keys.push(make_key(&folder)?);
    }
    let newest = keys.last().context("there is no key")?;
    let token = issue(settings, newest)?;
    let forgotten = if settings.forget { keys.drain(..keys.len() - 1).collect() } else { Vec::new() };
    publish(&folder, &keys)?;
    // Once they are out of the set: what cannot be published forgets no key.
    for old in forgotten {
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    println!("{token}");
    tracing::info!(keys = %folder.join(JWKS).display(), "twelve up --auth-jwks takes these keys");
    Ok(())
}

fn issue(settings: &Settings, key: &Path) -> anyhow::Result<String> {
    let roles: Vec<_> = settings.role.iter().filter_map(RoleName::to_possible_value).collect();
    let roles: Vec<&str> = roles.iter().map(clap::builder::PossibleValue::get_name).collect();
    let now = nats::now().as_second();
    let mut claims = json!({
        "sub": settings.id, "roles": roles, "stores": settings.store,
        "iss": ISSUER, "aud": settings.audience, "iat": now, "exp": now + settings.ttl_s,
    });
    for (claim, verified) in [("email", &settings.email), ("phone_number", &settings.phone)] {
        if let Some(verified) = verified {
            claims[claim] = json!(verified);
            claims[format!("{claim}_verified")] = json!(true);
        }
    }
    let header = Header { kid: Some(kid(key)), ..Header::new(Algorithm::EdDSA) };
    Ok(encode(&header, &claims, &EncodingKey::from_ed_der(&fs::read(key)?))?)
}

/// The issuer's keys, oldest first.
fn keys(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == KEY_ENDING) {
            keys.push(path);
        }
    }
    keys.sort();
    Ok(keys)
}

/// A new key, readable by nobody else. Its name is its id, and says when it was made.
fn make_key(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{}.{KEY_ENDING}", uuid::Uuid::now_v7()));
    let private = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
    let private = private.map_err(|_| anyhow::anyhow!("no key could be made"))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(private.as_ref())?;
    Ok(path)
}

fn publish(folder: &Path, keys: &[PathBuf]) -> anyhow::Result<()> {
    let mut set = JwkSet { keys: Vec::new() };
    for key in keys {
        let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ed_der(&fs::read(key)?), Algorithm::EdDSA)?;
        jwk.common.key_id = Some(kid(key));
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        set.keys.push(jwk);
    }
    // Whole or not at all: a process may be reading it.
    let (path, made) = (folder.join(JWKS), folder.join("jwks.new"));
    fs::write(&made, serde_json::to_vec_pretty(&set)?)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o644))?;
    fs::rename(&made, &path).with_context(|| format!("cannot write {}", path.display()))
}

fn kid(key: &Path) -> String {
    key.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
