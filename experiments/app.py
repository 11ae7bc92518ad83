"""How every experiment starts and ends: flags, help, errors of use, and joining other processes.

An experiment defines its flags with `module_name="Title"`, the section of --help they stand in,
and ends with `if __name__ == "__main__": app.run(main)`.
"""

import os
import shutil
import sys
import textwrap
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from jax._src import distributed

from cnn_jax import errors, plugins, workdir
from cnn_jax.runtime import agreement, peers, xla

_COORDINATOR = flags.DEFINE_string(
    "coordinator_address",
    None,
    "HOST:PORT at which process 0 is reached, or auto under SLURM, Open MPI 4, Kubernetes "
    "or on a TPU pod, where the other two flags are not needed.",
    module_name="Processes",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes that work together.", module_name="Processes"
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, counted from 0.", module_name="Processes"
)
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout",
    30.0,
    "Seconds after which a process that does not answer, or that the others wait for, ends them "
    "all with a line that names it; 0 leaves them waiting.",
    lower_bound=0.0,
    module_name="Processes",
)
_INITIALIZATION_TIMEOUT = flags.DEFINE_integer(
    "initialization_timeout",
    300,
    "Seconds that a process waits at the start until all are there.",
    lower_bound=1,
    module_name="Processes",
)

flags.DEFINE_multi_string(
    "plugin",
    [],
    "Module of your own that is imported first, for the models, data sets, attacks, explanation "
    "methods, optimizers, losses and recipes that it registers with cnn_jax.register_model and its "
    "kin. The working directory is searched too.",
    module_name="Your own code",
)

_FORMS = {  # of a flag's value in --help
    "int": "INT",
    "float": "FLOAT",
    "string enum": "NAME",
    "comma separated list of strings": "A,B,...",
}
_HELP_FLAGS = {"--help", "-help", "-h", "-?", "--helpshort"}

# the package of the commands, in a checkout and in the wheel
_COMMANDS = ("experiments.", "cnn_jax.experiments.")

_begun: list[Path] = []


def open_workdir(path: str | os.PathLike, config: Mapping[str, Any], **options: Any) -> Path:
    """workdir.open_workdir, undone if the run ends by an error of use before it came to anything.

    So that flags that turn out wrong later do not stand in the way of right ones. What a folder of
    an older version does not tell of a flag counts as its default, or as `defaults` says.
    """
    own = {name: flags.FLAGS[name].default for name in config if name in flags.FLAGS}
    options["defaults"] = own | dict(options.get("defaults") or {})
    new = not (Path(path).expanduser() / "config.json").exists()
    path = workdir.open_workdir(path, config, **options)
    if new:
        _begun.append(path)
    return path


def open_free_workdir(
    path: str | os.PathLike, config: Mapping[str, Any], named: bool = False
) -> Path:
    """open_workdir, beside the folder (NAME_2, ...) where that holds another configuration.

    Args:
      named: whether a flag names the folder; what is named is meant, and no other is taken.
    """
    number = 1
    while True:
        place = path if number == 1 else f"{os.fspath(path)}_{number}"
        try:
            return open_workdir(place, config)
        except errors.UsageError:
            if named or not (Path(place).expanduser() / "config.json").exists():
                raise
        number += 1


def run(
    main: Callable[[Sequence[str]], None],
    positional: str | None = None,
    prepare: Callable[[Sequence[str]], Sequence[str]] = list,
) -> None:
    """Parses the command line, calls main(argv) and exits.

    Args:
      positional: what arguments that are no flags stand for, as the help shows it, which main
        gets after the program's name; by default such arguments are refused.
      prepare: argv -> the argv that is parsed, called first.

    The exit status is 2 after an error of use, with one line on stderr that starts with `error:`;
    130 after Ctrl-C; 1 after any other exception, of a full disk with one line, else with the
    traceback.
    """

    def start(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # orbax and TFDS tell every step they take
            # what fails in orbax's threads is raised too, and told once
            logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
        together = _join_processes()
        try:
            if together:
                agreement.check(_flags_alike() | agreement.versions())
            main(argv)
        except BaseException as error:
            if together:
                _fail_together(error)
            raise
        if together:
            peers.leave(jax.distributed.shutdown)

    xla.configure()
    try:
        app.run(start, flags_parser=lambda argv: _parse(prepare(argv), positional))
    except errors.UsageError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        for path in _begun:
            workdir.abandon_workdir(path)
        _exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _exit(130)
    except Exception as error:
        line = errors.no_room(error)
        if line is None:
            raise
        sys.stdout.flush()
        sys.stderr.write(f"error: {line}\n")  # at once, as other threads may tell something too
        sys.stderr.flush()
        os._exit(1)  # what is still being written would tell of each file that it failed


def _exit(status: int) -> None:
    if distributed.global_state.client is not None:  # at exit JAX waits for the other processes
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _parse(argv: Sequence[str], positional: str | None) -> list[str]:
    _import_plugins(argv)
    if _HELP_FLAGS.intersection(argv[1:]):
        print(help_text(shutil.get_terminal_size().columns, positional))
        sys.exit()
    try:
        program, *arguments = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        known = [f"--{flag.name}" for section in _sections().values() for flag in section]
        raise errors.unknown("flag", f"--{error.flagname}", known) from None
    except flags.Error as error:
        raise errors.UsageError(str(error)) from None
    if arguments and positional is None:
        raise errors.UsageError(f"unexpected {arguments[0]!r}; flags are written --name=value")
    return [program, *arguments]


def _import_plugins(argv: Sequence[str]) -> None:
    """Imports the modules of --plugin, before the flags that what they register is chosen by."""
    plugins.search_working_directory()
    values = flags.FlagValues()
    flags.DEFINE_multi_string("plugin", [], "", flag_values=values)
    values.set_gnu_getopt(True)  # goes on after the other flags' values
    try:
        values(argv, known_only=True)
    except flags.Error as error:
        raise errors.UsageError(str(error)) from None
    plugins.load(values.plugin)


def _join_processes() -> bool:
    """Connects the processes of one run, before any other use of JAX; returns whether it did."""
    given = {
        name: flags.FLAGS[name].value
        for name in ("coordinator_address", "num_processes", "process_id")
        if flags.FLAGS[name].value is not None
    }
    if not given:
        return False
    if given == {"coordinator_address": "auto"}:
        given = {}
    elif len(given) < 3:
        raise errors.UsageError(
            "--coordinator_address, --num_processes and --process_id go together; give all three"
        )
    timeout, wait = _PEER_TIMEOUT.value, _INITIALIZATION_TIMEOUT.value
    # JAX would end the process with a dump of its stack
    late = threading.Timer(wait, _end_alone, [wait])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=wait + 60,
            # later than ours, which names who is lost
            heartbeat_timeout_seconds=int(timeout) + 70,
            shutdown_timeout_seconds=3600,  # the first still draws while the others have ended
        )
    except (ValueError, RuntimeError) as error:
        what = "processes count from 0, and the port is free on the host of process 0"
        if not given:
            what = (
                "SLURM, Open MPI 4, Kubernetes or a TPU pod started this process; else give "
                "HOST:PORT, --num_processes and --process_id"
            )
        raise errors.UsageError(
            f"cannot join the other processes ({error}); see that {what}"
        ) from error
    finally:
        late.cancel()
    state = distributed.global_state  # what was detected is told nowhere else
    if timeout and state.num_processes > 1:
        host = state.coordinator_address.rpartition(":")[0]
        peers.watch(state.process_id, state.num_processes, host, state.client, timeout)
    return True


def _flags_alike() -> dict[str, Any]:
    """What is the same in all processes of a run: the command's flags, as they were given.

    Each host may keep its data in a place of its own: training compares what lies there.
    """
    there = {"num_processes": distributed.global_state.num_processes, **flag_values()}
    return {f"--{name}": str(value) for name, value in there.items() if name != "data_dir"}


def _end_alone(wait: int) -> None:
    print(
        f"error: the processes did not come together within {wait} s; start all of them, at an "
        "address that each reaches, or give a longer --initialization_timeout",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def _fail_together(error: BaseException) -> None:
    """Ends this process of several at once; what waits for the others at exit would not end.

    Its own error stands on stderr, or the loss of another process where it follows from that.
    """
    deliberate = not isinstance(error, Exception) or isinstance(error, errors.UsageError)
    line = peers.fail(error, deliberate)
    if line is None and not deliberate:
        line = errors.no_room(error)
    status = 1
    if line:
        print("error:", line, file=sys.stderr)
    elif isinstance(error, (errors.UsageError, KeyboardInterrupt)):
        return  # as without other processes
    elif isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    os._exit(status)


def help_text(width: int, positional: str | None = None) -> str:
    """The experiment's docstring and its flags by section, wrapped to a width in characters."""
    width = max(60, min(width, 100))
    program = sys.modules["__main__"]
    module = program.__spec__.name if program.__spec__ else sys.argv[0]
    arguments = f"{positional} --flag=value ..." if positional else "--flag=value ..."
    usage = f"usage: python -m {module} {arguments}"
    if module.startswith(_COMMANDS):
        launcher = "./launch.sh" if module.startswith("experiments.") else "cnn-jax"
        usage += f"   or {launcher} {module.rpartition('.')[2]} {arguments}"
    paragraphs = [(program.__doc__ or "").strip(), usage]
    for title, section in _sections().items():
        paragraphs.append("\n".join([f"{title}:", *(_describe(flag, width) for flag in section)]))
    for kind, names in plugins.REGISTERED.items():
        paragraphs.append(f"Registered of your own, {kind}: {', '.join(names)}")
    paragraphs.append("--helpfull also lists the flags of absl, grain and the other libraries.")
    return "\n\n".join(paragraphs)


def flag_values() -> dict[str, Any]:
    """The values of the experiment's own flags by name, those about processes left out."""
    sections = _sections()
    del sections["Processes"]
    values = {flag.name: flag.value for section in sections.values() for flag in section}
    if not values["plugin"]:
        del values["plugin"]  # such a run is the same one as before there were plugins
    return values


def _sections() -> dict[str, list[flags.Flag]]:
    """The experiments' flags by section; those of libraries belong to dotted module names."""
    sections = defaultdict(list)
    for module, module_flags in flags.FLAGS.flags_by_module_dict().items():
        if module == sys.argv[0] or module.startswith(_COMMANDS):
            sections["Options"] += module_flags
        elif "." not in module:
            sections[module] += module_flags
    for title in ("Your own code", "Processes"):  # last
        sections[title] = sections.pop(title)
    return sections


def _describe(flag: flags.Flag, width: int, column: int = 28) -> str:
    """A flag's name and type, and from the column on its help, choices and default."""
    kind = flag.flag_type().removeprefix("multi ")
    text, default = " ".join(flag.help.split()), flag.default_as_str
    if isinstance(flag.parser, flags.EnumParser):  # absl puts the choices before the help
        text = f"{text.partition('>: ')[2]} One of {', '.join(flag.parser.enum_values)}."
    if isinstance(flag, flags.MultiFlag):  # absl appends a longer remark
        text = f"{text.rpartition(';')[0]} May be repeated."
        default = ", ".join(map(str, flag.default or ()))
    if default:
        text += f" (default: {default.strip(chr(39))})"
    form = "--[no]" + flag.name if kind == "bool" else f"--{flag.name}={_FORMS.get(kind, 'TEXT')}"
    indent = " " * column
    lines = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    if len(form) < column - 3:
        return "\n".join(lines).replace(indent, f"  {form:<{column - 2}}", 1)
    return "\n".join([f"  {form}", *lines])
