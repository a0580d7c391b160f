//! Makes the types and the servers of the gRPC contract, without a `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const CONTRACT: &str = "twelve/v1/twelve.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let descriptors = protox::compile([CONTRACT], [proto])?;
    // For reflection.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("twelve.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .type_attribute(".", "#[serde(default)]")
        .field_attribute(".twelve.v1.Entry.data", "#[serde(deserialize_with = \"super::as_text\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
