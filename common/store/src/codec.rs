//! How values of berth's types are stored.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use berth_types::{AttachmentKey, SandboxId};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{Error, Result, Row};

/// An address as a blob: the family (4 or 6), then the address, highest byte first. Blobs compare as memory does, so
/// the addresses of one family are in order and apart from the other's.
pub(crate) struct Addr(pub(crate) IpAddr);

impl ToSql for Addr {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        let bytes: Vec<u8> = match self.0 {
            IpAddr::V4(v4) => std::iter::once(4).chain(v4.octets()).collect(),
            IpAddr::V6(v6) => std::iter::once(6).chain(v6.octets()).collect(),
        };
        Ok(bytes.into())
    }
}

impl FromSql for Addr {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_blob()? {
            [4, v4 @ ..] => <[u8; 4]>::try_from(v4).map(|octets| Self(octets.into())),
            [6, v6 @ ..] => <[u8; 16]>::try_from(v6).map(|octets| Self(octets.into())),
            other => return Err(FromSqlError::InvalidBlobSize { expected_size: 5, blob_size: other.len() }),
        }
        .map_err(|err| FromSqlError::Other(Box::new(err)))
    }
}

/// A text column parsed into one of berth's types.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize) -> Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|err| Error::FromSqlConversionFailure(column, Type::Text, Box::new(err)))
}

/// As [`parsed`] for a column that may be NULL.
pub(crate) fn parsed_opt<T>(row: &Row<'_>, column: usize) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { parsed(row, column).map(Some) }
}

/// Three text columns from `column` on: network, container, ifname.
pub(crate) fn key(row: &Row<'_>, column: usize) -> Result<AttachmentKey> {
    Ok(AttachmentKey {
        network: parsed(row, column)?,
        container: parsed(row, column + 1)?,
        ifname: parsed(row, column + 2)?,
    })
}

/// Three columns from `column` on: path (bytes), device, inode; all NULL or none.
pub(crate) fn sandbox(row: &Row<'_>, column: usize) -> Result<Option<(PathBuf, SandboxId)>> {
    let path: Option<Vec<u8>> = row.get(column)?;
    let Some(path) = path else { return Ok(None) };
    let dev: i64 = row.get(column + 1)?;
    let ino: i64 = row.get(column + 2)?;
    let id = SandboxId { dev: dev.cast_unsigned(), ino: ino.cast_unsigned() };
    Ok(Some((PathBuf::from(OsStr::from_bytes(&path)), id)))
}

/// The three stored values of a sandbox.
pub(crate) fn sandbox_columns(
    sandbox: Option<&(PathBuf, SandboxId)>,
) -> (Option<&[u8]>, Option<i64>, Option<i64>) {
    match sandbox {
        None => (None, None, None),
        Some((path, id)) => (Some(path_bytes(path)), Some(id.dev.cast_signed()), Some(id.ino.cast_signed())),
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
