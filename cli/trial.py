"""``subscribers test``: a sample by the real channels, and what each answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from cli.addresses import shortened
from cli.output import cell, print_json
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    DestinationForbidden,
    NotFound,
    RateLimited,
    ScanheraldError,
)
from schemas.notifications import ChannelAddress, ChannelKind, Message, Subscriber

if TYPE_CHECKING:
    from tasks.wiring import Wiring


def send_samples(
    parts: Wiring, subscriber: Subscriber, only: ChannelKind | None, *, as_json: bool
) -> int:
    """Send a sample on each channel and print the answers; returns the exit status."""
    from channels.operator_templates import check_templates
    from tasks.sample import sample

    check_templates(parts.settings.templates_dir)
    addresses = [item for item in subscriber.channels if only is None or item.kind is only]
    if not addresses:
        have = ", ".join(address.kind for address in subscriber.channels)
        raise NotFound(f"{subscriber.subscriber_id!r} has no {only} channel; it has: {have}")
    answers = []
    for address in addresses:
        message = Message(
            message_id=parts.new_id(),
            notification=sample(parts.clock()),
            address=address,
            subscriber_id=subscriber.subscriber_id,
            language=subscriber.locale or parts.settings.language,
        )
        answers.append(_answer(parts, subscriber, address, message))
    if as_json:
        print_json(answers)
    else:
        _print(answers)
    return 0 if all(answer["accepted"] for answer in answers) else 1


def _answer(
    parts: Wiring, subscriber: Subscriber, address: ChannelAddress, message: Message
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "channel": address.kind.value,
        "address": shortened(address),
        "message_id": message.message_id,
        "accepted": False,
    }
    try:
        receipt = parts.channel(address.kind).send(message)
    except ScanheraldError as error:
        return answer | {
            "status_code": getattr(error, "status_code", None),
            "receipt": getattr(error, "receipt", None),
            "error": str(error),
            "do": _advice(error, subscriber, address),
        }
    return answer | {
        "accepted": True,
        "status_code": receipt.status_code,
        "receipt": receipt.text,
        "error": None,
        "do": None,
    }


def _advice(error: ScanheraldError, subscriber: Subscriber, address: ChannelAddress) -> str:
    edit = f"scanherald subscribers edit {subscriber.subscriber_id} --{address.kind} …"
    match error:
        case DestinationForbidden():
            return (
                f"Give a public https address: {edit}. A host of your own is exempted by "
                "SCANHERALD_HTTP_ALLOW."
            )
        case DeliveryRejected():
            return f"Mend the address, or what it asks for: {edit}"
        case RateLimited(retry_after=float() | int() as seconds):
            return f"Wait {seconds:.0f} s and test again; deliveries wait by themselves."
        case ChannelUnavailable():
            return (
                "See that it answers from this machine, and test again; deliveries are tried "
                "again by themselves."
            )
    return "See docs/configuration.md for the settings of this channel."


def _print(answers: list[dict[str, Any]]) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for answer in answers:
        said = "[green]accepted[/green]" if answer["accepted"] else "[red]refused[/red]"
        status = "" if answer["status_code"] is None else f" with {answer['status_code']}"
        console.print(f"{answer['channel']} {cell(answer['address'])}: {said}{status}")
        for name in ("receipt", "error", "do"):
            if answer[name]:
                console.print(f"  {cell(answer[name])}")
        console.print(f"  message id {answer['message_id']}")
    console.print("A test is no delivery: nothing was written into the ledger.")
