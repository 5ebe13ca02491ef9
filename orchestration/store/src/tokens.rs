//! Tokens.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kiro_ports::{NewToken, PortError, Principal, Role, ScramVerifier, TokenInfo, Tokens};
use kiro_schemas::{Micros, Secret, Tenant};
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::store::with_pool;
use crate::{Error, Result, Store, scram};

/// Tenant, role, salt, iterations, salted password.
type Verifier = (String, String, Vec<u8>, i64, Vec<u8>);

const PREFIX: &str = "kiro_";
/// The prefix and 32 bytes in base64.
const LENGTH: usize = PREFIX.len() + 43;

#[async_trait]
impl Tokens for Store {
    async fn create(&self, token: NewToken, now: Micros) -> Result<Secret, PortError> {
        self.create_token(token, now).await.map_err(PortError::of)
    }

    async fn verify(&self, token: &Secret, now: Micros) -> Result<Option<Principal>, PortError> {
        self.verify_token(token, now).await.map_err(PortError::of)
    }

    async fn scram(&self, name: &str, now: Micros) -> Result<Option<(Principal, ScramVerifier)>, PortError> {
        self.scram_verifier(name, now).await.map_err(PortError::of)
    }

    async fn list(&self, tenant: &Tenant) -> Result<Vec<TokenInfo>, PortError> {
        self.tokens_of(tenant).await.map_err(PortError::of)
    }

    async fn revoke(&self, tenant: &Tenant, name: &str) -> Result<bool, PortError> {
        let sql = "DELETE FROM tokens WHERE tenant = $1 AND name = $2";
        with_pool!(&self.pool, db => {
            sqlx::query(sql).bind(tenant.as_str()).bind(name).execute(db).await.map(|done| done.rows_affected() > 0)
        })
        .map_err(Error::query("revoke a token"))
        .map_err(PortError::of)
    }
}

impl Store {
    async fn create_token(&self, token: NewToken, now: Micros) -> Result<Secret> {
        check(&token)?;
        let (mut bits, mut salt) = ([0_u8; 32], [0_u8; ScramVerifier::SALT_BYTES]);
        OsRng.try_fill_bytes(&mut bits).map_err(|source| Error::Random { source })?;
        OsRng.try_fill_bytes(&mut salt).map_err(|source| Error::Random { source })?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits));
        let password = text.clone();
        let salted = tokio::task::spawn_blocking(move || scram::salted_password(password.as_bytes(), &salt, scram::ITERATIONS))
            .await
            .map_err(|_source| Error::Stopped)?;
        let sql = "INSERT INTO tokens (name, tenant, role, digest, salt, iterations, salted_password, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO NOTHING";
        let made = with_pool!(&self.pool, db => {
            sqlx::query(sql)
                .bind(&token.name)
                .bind(token.tenant.as_str())
                .bind(token.role.as_str())
                .bind(digest(&text))
                .bind(salt.to_vec())
                .bind(i64::from(scram::ITERATIONS))
                .bind(salted)
                .bind(now.0)
                .bind(token.expires_at.map(|at| at.0))
                .execute(db)
                .await
                .map(|done| done.rows_affected())
        })
        .map_err(Error::query("create a token"))?;
        if made == 0 { Err(Error::Taken { what: "token", name: token.name }) } else { Ok(Secret::new(text)) }
    }

    async fn verify_token(&self, token: &Secret, now: Micros) -> Result<Option<Principal>> {
        let text = token.expose();
        if text.len() != LENGTH || !text.starts_with(PREFIX) {
            return Ok(None);
        }
        let wanted = digest(text);
        let sql = "SELECT name, tenant, role, digest FROM tokens WHERE digest = $1 AND (expires_at IS NULL OR expires_at > $2)";
        let found: Option<(String, String, String, Vec<u8>)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(&wanted).bind(now.0).fetch_optional(db).await)
                .map_err(Error::query("verify a token"))?;
        match found {
            Some((name, tenant, role, digest)) if bool::from(digest.as_slice().ct_eq(&wanted)) => principal(name, tenant, &role).map(Some),
            _ => Ok(None),
        }
    }

    async fn scram_verifier(&self, name: &str, now: Micros) -> Result<Option<(Principal, ScramVerifier)>> {
        let sql = "SELECT tenant, role, salt, iterations, salted_password FROM tokens \
                   WHERE name = $1 AND (expires_at IS NULL OR expires_at > $2)";
        let found: Option<Verifier> = with_pool!(&self.pool, db => sqlx::query_as(sql).bind(name).bind(now.0).fetch_optional(db).await)
            .map_err(Error::query("read a token"))?;
        let Some((tenant, role, salt, iterations, salted_password)) = found else { return Ok(None) };
        let iterations =
            u32::try_from(iterations).map_err(|_source| Error::Corrupt { column: "tokens.iterations", value: iterations.to_string() })?;
        Ok(Some((principal(name.to_owned(), tenant, &role)?, ScramVerifier { salt, iterations, salted_password })))
    }

    async fn tokens_of(&self, tenant: &Tenant) -> Result<Vec<TokenInfo>> {
        let sql = "SELECT name, role, created_at, expires_at FROM tokens WHERE tenant = $1 ORDER BY name";
        let rows: Vec<(String, String, i64, Option<i64>)> =
            with_pool!(&self.pool, db => sqlx::query_as(sql).bind(tenant.as_str()).fetch_all(db).await)
                .map_err(Error::query("list tokens"))?;
        let info = |(name, role, created_at, expires_at): (String, String, i64, Option<i64>)| {
            let role = read_role(&role)?;
            Ok(TokenInfo { name, tenant: tenant.clone(), role, created_at: Micros(created_at), expires_at: expires_at.map(Micros) })
        };
        rows.into_iter().map(info).collect()
    }
}

fn check(token: &NewToken) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !(1..=63).contains(&token.name.len()) || !token.name.bytes().all(allowed) {
        let rule = "1 to 63 letters, digits, hyphens, underscores and dots";
        return Err(Error::Invalid { what: "the token name", value: token.name.chars().take(80).collect(), rule });
    }
    if !kiro_schemas::id::is_tenant(token.tenant.as_str()) {
        let value = token.tenant.as_str().chars().take(80).collect();
        return Err(Error::Invalid { what: "the tenant", value, rule: "1 to 64 of a-z, 0-9, hyphen and underscore" });
    }
    Ok(())
}

fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

fn read_role(role: &str) -> Result<Role> {
    Role::parse(role).ok_or_else(|| Error::Corrupt { column: "tokens.role", value: role.to_owned() })
}

fn principal(name: String, tenant: String, role: &str) -> Result<Principal> {
    Ok(Principal { name, tenant: Tenant::new(tenant), role: read_role(role)? })
}
