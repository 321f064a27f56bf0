//! `synovia verify-log`: whether an audit log of the server is whole.

use anyhow::{Context as _, bail};
use synovia_serving::verify;

use crate::cli::VerifyLogArgs;
use crate::failure::print;

/// Prints how many lines there are and the digest of the last: what to keep elsewhere.
///
/// # Errors
/// The first line that is not what was written, or does not follow the one before it; a digest that should be there and is not.
pub fn verify_log(args: &VerifyLogArgs) -> anyhow::Result<()> {
    let name = args.file.display();
    let file = std::fs::File::open(&args.file).with_context(|| name.to_string())?;
    let size = file.metadata().with_context(|| name.to_string())?.len();
    let mut holds = args.holds.is_none();
    let each = &mut |digest: &str| holds |= args.holds.as_ref().is_some_and(|kept| kept.eq_ignore_ascii_case(digest));
    let chain = verify(file, each).with_context(|| name.to_string())?;
    if !holds {
        bail!("{name}: no line has the digest that was kept: lines were cut off the end, or it is another log");
    }
    print(serde_json::json!({ "lines": chain.lines, "sha256": chain.sha256, "unfinished_bytes": size.saturating_sub(chain.bytes) }))
}
