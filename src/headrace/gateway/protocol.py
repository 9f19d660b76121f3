"""HTTP/1.1 as the gateway speaks it: uvicorn's parser, with limits, time limits and the fast way.

Whatever is refused here is refused in OpenAI's form, as everywhere else; requests that the fast way
does not want go to the ASGI application just as uvicorn would have brought them there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Literal, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from headrace.contracts.errors import LLMError
from headrace.gateway.asgi import id_for
from headrace.gateway.head import Head, scope_of
from headrace.gateway.hot.answers import going_on, write_stream_head, write_whole
from headrace.gateway.hot.asked import Declined
from headrace.gateway.hot.door import HotDoor
from headrace.gateway.hot.exchange import Exchange
from headrace.gateway.hot.head import HotHead
from headrace.gateway.logs import log_request
from headrace.gateway.refusals import (
    head_too_large,
    not_http,
    not_in_time,
    refuse_as_full,
    write_refusal,
)
from headrace.net.known_head import KnownHead
from headrace.traffic.fallback import Earlier

log = logging.getLogger(__name__)


def http_class(door: HotDoor) -> type[HttpProtocol]:
    """The class of the connections of one server; uvicorn makes them by itself."""
    return type("GatewayProtocol", (HttpProtocol,), {"door": door})


class HttpProtocol(HttpToolsProtocol):
    """One connection. ``exchange`` is the request on the fast way, while there is one."""

    door: HotDoor
    cycle: Any
    """uvicorn's of the latest request that was read, an exchange in its place, or None."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exchange: Exchange | None = None
        self.waits_for: Literal["head", "body", "request"] | None = "head"
        """What has to come from the caller now, since the instant ``waits_since``."""
        self.waits_since = self.loop.time()
        self._answering: RequestResponseCycle | None = None
        """The cycle whose application runs; ``cycle`` is the latest that was read."""
        self._body: list[bytes] | None = None
        """What came of the body of a request that the fast way wants."""
        self._hot: HotHead | None = None
        """The head of that request."""
        self._known: KnownHead[HotHead] = KnownHead()
        self._whole: bytes | None = None
        """The body of such a request that ended in what was just read."""
        self._began_at = 0.0
        self._head_bytes = self._fed_bytes = 0
        self._offers_upgrade = False
        self._in_head = self._streaming = self._refused = False

    # The socket's side.

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.door.running.discard(exchange)
            exchange.leave()
            self._log(exchange, 200 if self._streaming else 499)
        if self._body is not None and self.door.logs_requests:
            took_s = self.loop.time() - self.waits_since
            given = None if self._hot is None else self._hot.fields.get(b"x-request-id")
            log_request("POST", self.url.decode("ascii"), 499, took_s, id_for(given), None)
        answering = self._answering
        if answering is not None and answering is not self.cycle:
            # uvicorn tells the latest of several requests only.
            answering.disconnected = True
            answering.message_event.set()
        if isinstance(self.cycle, Exchange):
            self.cycle = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self.waits_for == "request":  # nothing is under way, and the parser waits as we do
            body = self._known.body_of(data)
            if body is not None and self._begin_known(self._known.means, body):
                return
        is_at_seam = self.waits_for == "request" or (self.waits_for == "head" and not self._in_head)
        self._fed_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(not_http(error))
            return
        body, self._whole = self._whole, None
        if body is not None and self._hot is not None and is_at_seam:
            self._known.learn(data, body, self._hot)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.door.server.max_header_bytes:
                self._refuse(head_too_large(self.door.server))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume()

    def shutdown(self) -> None:
        """The server drains: close where nothing is under way."""
        if self._body is not None:  # a request that is still coming
            self.transport.close()
        else:
            super().shutdown()

    def too_late(self) -> None:
        """What had to come did not come in time."""
        if self.transport.is_closing():
            return
        nothing_asked = self.waits_for == "head" and not self._in_head
        is_answered = self.waits_for == "body" and self._body is None
        if self.waits_for == "request" or nothing_asked or is_answered:
            self.transport.close()
            return
        assert self.waits_for is not None
        self._refuse(not_in_time(self.waits_for, self.door.server))

    # The parser's side.

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = True
        self._head_bytes = 0
        self.waits_for = "head"
        self.waits_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refused:
            return
        if self.parser.should_upgrade():
            self._offers_upgrade = True
            return
        headers = self.headers
        # Most heads come in one piece that is itself within the limit.
        if self._head_bytes + self._fed_bytes > self.door.server.max_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > self.door.server.max_header_bytes:
                self._refuse(head_too_large(self.door.server))
                return
        head, fields = self._head(), dict(headers)
        if (
            self.exchange is None
            and (self.cycle is None or self.cycle.response_complete)
            and len(fields) == len(headers)
            and not self._is_full()
        ):
            self._hot = self.door.look_at(head, fields)
            if self._hot is not None:
                self._body = []
                self.waits_for = "body"
                return
        self.waits_for = None
        app: Any = refuse_as_full if self._is_full() else self.app
        existing = self.cycle
        cycle = self.cycle = self._new_cycle(head)
        if existing is None or existing.response_complete:
            self._start_asgi_task(cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def on_body(self, body: bytes) -> None:
        if self._body is not None:
            self._body.append(body)
        elif not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offers_upgrade:
            return
        pieces, self._body = self._body, None
        if pieces is None:
            if not self._refused:
                super().on_message_complete()
            return
        assert self._hot is not None
        self._whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._begin(self._hot, self._whole)

    def _begin_known(self, hot: HotHead, body: bytes) -> bool:
        """Begin a request whose head was read before, if it may go the fast way now as then."""
        if not self.door.knows(hot, body) or self._is_full():
            return False
        self._hot = hot
        self._begin(hot, body)
        return True

    def _begin(self, hot: HotHead, body: bytes) -> None:
        self.waits_for = None
        exchange = self.door.begin(self, self.loop, hot, body)
        if isinstance(exchange, Declined):
            known = {
                "headrace.standing": exchange.standing,
                "headrace.chosen": exchange.chosen,
                "headrace.inbound": exchange.inbound,
            }
            cycle = self._whole_cycle(hot.head, body, known)
            self._start_asgi_task(cycle, self.app)
            return
        self._began_at = self.loop.time()
        self.exchange = exchange
        self.cycle = exchange
        exchange.begin()

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the request again as if it had offered no other protocol.

        Clients that would like HTTP/2 (curl --http2) say so in an ordinary request; llhttp takes
        what follows its head for the other protocol's.
        """
        offer = (b"upgrade", b"http2-settings", b"connection")
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % each for each in self.headers if each[0] not in offer]
        self._offers_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    # The general way.

    def _head(self) -> Head:
        version = self.parser.get_http_version()
        return Head(
            url=self.url,
            method=self.parser.get_method(),
            headers=self.headers,
            version=version,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
        )

    def _new_cycle(self, head: Head) -> RequestResponseCycle:
        return RequestResponseCycle(
            scope=cast(Any, scope_of(head, self.root_path, self._of_connection())),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keep_alive,
            on_response=self.on_response_complete,
        )

    def _whole_cycle(
        self, head: Head, body: bytes, known: Mapping[str, object]
    ) -> RequestResponseCycle:
        """The cycle of a request whose body is here; ``known`` is told to the application."""
        cycle = self._new_cycle(head)
        cast(dict[str, object], cycle.scope).update(known)
        cycle.body += body
        cycle.more_body = False
        cycle.message_event.set()
        if not self.pipeline:  # else a later one was read already
            self.cycle = cycle
        return cycle

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is complete: the next request that came already has its turn."""
        self._answering = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._refused:
            self.transport.close()
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.waits_for is None:
            # Answered before all of it was here (413, say): the rest is read and thrown away.
            is_whole = isinstance(self.cycle, Exchange) or not self.cycle.more_body
            self.waits_for = "request" if is_whole else "body"
            self.waits_since = self.loop.time()

    def _of_connection(self) -> dict[str, Any]:
        return {
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "state": self.app_state.copy(),
        }

    # The fast way: what exchanges ask of us.

    def send_whole(self, exchange: Exchange, body: bytes) -> None:
        """See Caller."""
        self.transport.write(write_whole(exchange, body))
        self._finish(exchange)

    def send_events(self, exchange: Exchange, events: bytes) -> None:
        """See Caller."""
        chunk = b"%x\r\n%b\r\n" % (len(events), events)
        if not self._streaming:
            self._streaming = True
            chunk = write_stream_head(exchange) + chunk
        self.transport.write(chunk)

    def end_events(self, exchange: Exchange, events: bytes) -> None:
        """See Caller."""
        last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events) if events else b"0\r\n\r\n"
        if not self._streaming:
            last = write_stream_head(exchange) + last
        self._streaming = False
        self.transport.write(last)
        self._finish(exchange)

    def send_error(self, exchange: Exchange, error: LLMError) -> None:
        """See Caller."""
        self.door.running.discard(exchange)
        self.exchange = None
        self._log(exchange, error.status)
        error.request_id = exchange.passage.request_id
        self.transport.write(write_refusal(error, exchange.face.errors))
        self.transport.close()

    def take_over(self, exchange: Exchange, earlier: Earlier) -> None:
        """See Caller."""
        self.door.running.discard(exchange)
        self.exchange = None
        known = {
            "headrace.earlier": earlier,
            "headrace.standing": exchange.asked.standing,
            "headrace.chosen": exchange.asked.chosen,
            "headrace.inbound": exchange.asked.inbound,
            "headrace.request_id": exchange.passage.request_id,
        }
        cycle = self._whole_cycle(exchange.asked.hot.head, exchange.asked.body, known)
        self._start_asgi_task(cycle, going_on(self.app, exchange, earlier))

    def _finish(self, exchange: Exchange) -> None:
        exchange.response_complete = True
        self.exchange = None
        self.door.running.discard(exchange)
        if exchange.asked.standing.config.logging.requests:
            self._log(exchange, 200)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _log(self, exchange: Exchange, status: int) -> None:
        if exchange.asked.standing.config.logging.requests:
            passage = exchange.passage
            took_s = self.loop.time() - self._began_at
            path = exchange.asked.hot.head.url.decode("ascii")
            log_request("POST", path, status, took_s, passage.request_id, passage.ticket.route)

    # Refusals.

    def _is_full(self) -> bool:
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) > limit or len(self.tasks) >= limit)

    def _refuse(self, error: LLMError) -> None:
        """Answer with ``error`` and close; where an answer is under way, close after that."""
        if self._refused:
            return
        self._refused = True
        self.waits_for = None
        self.flow.pause_reading()
        under_way, cycle = self.exchange or self._answering, self._answering
        if cycle is not None and cycle is self.cycle and cycle.more_body:
            # What is wrong is the rest of the very request that is being answered.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        elif under_way is not None and not under_way.response_complete and self._body is None:
            under_way.keep_alive = False
            self.pipeline.clear()
            return
        self._body = None
        error.request_id = id_for(None)
        self.transport.write(write_refusal(error))
        self.transport.close()
        log.info("refused a request: %s", error, extra={"request_id": error.request_id})
