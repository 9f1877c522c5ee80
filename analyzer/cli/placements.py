"""How are placements listed, shown and checked? The command group `placement`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["placements"]

placements = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]


@placements.callback()
def placement_group() -> None:
    """List the shipped placements, show one, check a file of your own."""


@placements.command("list")
def list_command(json_output: Json = False) -> None:
    """List the shipped placements: where each swaps, who must change, what it needs."""
    from rich.text import Text

    from analyzer.cli.drawing import escaped, new_console
    from analyzer.cli.render import print_json
    from analyzer.pipeline import list_placements

    answer = list_placements()
    if json_output:
        print_json(answer)
        return
    console = new_console()
    for row in answer["placements"]:
        console.print(Text(f"{row['name']} (boundary {row['boundary']}): {row['title']}"))
        for key, text in (
            ("proposed by", row["proposed_by"]),
            ("must change", ", ".join(row["changes"]) or "nobody"),
            ("hardware", row["hardware"]),
            ("deterministic", row["deterministic"]),
        ):
            console.print(Text(f"  {key}: {escaped(text)}"))


@placements.command("show")
def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME")], json_output: Json = False
) -> None:
    """Show a shipped placement's whole TOML, as a beginning for one of your own."""
    from analyzer.cli.render import print_json
    from analyzer.pipeline import show_placement

    answer = show_placement(name)
    print_json(answer) if json_output else print(answer["text"], end="")


@placements.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(metavar="FILE")], json_output: Json = False
) -> None:
    """Check a placement file: ok, or one line that names the key and what it allows."""
    from analyzer.cli.render import print_json
    from analyzer.pipeline import check_placement

    answer = check_placement(file)
    print_json(answer) if json_output else print(f"ok: {answer['placement']['name']}")
