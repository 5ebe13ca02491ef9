//! The messages of one connection, each of them bounded before it is taken into memory: the library would take a gigabyte.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::Stream;
use pgwire::api::{ClientInfo, ErrorHandler, PgWireConnectionState, PgWireServerHandlers};
use pgwire::error::PgWireError;
use pgwire::messages::PgWireFrontendMessage;
use pgwire::tokio::server::{MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::Framed;

/// Most bytes of a message: a statement may have far fewer, its values some more.
const MOST: usize = 1 << 20;
/// Time for a login, from the connection on. Clients that ask a person for a password connect again with it.
pub(super) const LOGIN: Duration = Duration::from_secs(10);

type Socket<S> = Framed<MaybeTls, PgWireMessageServerCodec<S>>;

/// Answers the messages of a connection until it ends.
pub(super) async fn answer(stream: TcpStream, acceptor: Option<TlsAcceptor>, handlers: impl PgWireServerHandlers) -> io::Result<()> {
    let login = tokio::time::sleep(LOGIN);
    tokio::pin!(login);
    let negotiated = tokio::select! {
        () = &mut login => return Ok(()),
        negotiated = negotiate_tls(stream, acceptor) => negotiated?,
    };
    let Some(mut socket) = negotiated else { return Ok(()) };
    let (startup, cancel, copy) = (handlers.startup_handler(), handlers.cancel_handler(), handlers.copy_handler());
    let (simple, extended, errors) = (handlers.simple_query_handler(), handlers.extended_query_handler(), handlers.error_handler());
    loop {
        let message = tokio::select! {
            () = &mut login, if is_login(socket.state()) => return Ok(()),
            message = next(&mut socket) => message,
        };
        let message = match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Err(mut error)) => {
                errors.on_error(&socket, &mut error);
                return process_error(&mut socket, error, false).await;
            }
            Some(Ok(message)) => message,
        };
        let is_extended = message.is_extended_query();
        let (startup, simple, extended) = (startup.clone(), simple.clone(), extended.clone());
        let is_at_login = is_login(socket.state());
        let done = tokio::select! {
            // It takes as long as whoever knows the tokens does.
            () = &mut login, if is_at_login => return Ok(()),
            done = process_message(message, &mut socket, startup, simple, extended, copy.clone(), cancel.clone()) => done,
        };
        if let Err(mut error) = done {
            errors.on_error(&socket, &mut error);
            process_error(&mut socket, error, is_extended).await?;
        }
    }
}

const fn is_login(state: PgWireConnectionState) -> bool {
    matches!(state, PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress)
}

/// The next message, or the refusal of one that announces too much: looked at each time that more of it was read.
async fn next<S>(socket: &mut Socket<S>) -> Option<Result<PgWireFrontendMessage, PgWireError>> {
    poll_fn(|context| match Pin::new(&mut *socket).poll_next(context) {
        Poll::Pending => match announced(socket) {
            Some(size) if size > MOST => Poll::Ready(Some(Err(PgWireError::MessageTooLarge(MOST, size)))),
            _ => Poll::Pending,
        },
        ready @ Poll::Ready(_) => ready,
    })
    .await
}

/// What the message that is being read announces; the first one has no kind before its length, and its own limit.
fn announced<S>(socket: &Socket<S>) -> Option<usize> {
    if matches!(socket.state(), PgWireConnectionState::AwaitingSslRequest | PgWireConnectionState::AwaitingStartup) {
        return None;
    }
    let length: [u8; 4] = socket.read_buffer().get(1..5)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}
