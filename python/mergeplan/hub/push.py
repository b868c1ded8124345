"""Push a merge: everything that may forbid it is asked before the merge, and the files go after it,
verified, in one commit."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from mergeplan._native import __version__
from mergeplan.checkpoints.checkpoint import INDEX_ENDING
from mergeplan.display.text import cut, listed
from mergeplan.errors import InputError, MergeplanError, SurroundingsError
from mergeplan.hub.client import open_hub, status_of, telling
from mergeplan.inspection.verify import verify
from mergeplan.merging.card import Card
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import NAME as MANIFEST
from mergeplan.merging.manifest import InputFile, InputModel, Manifest, load_manifest
from mergeplan.merging.replacing import CARD, CARD_CONFIG
from mergeplan.system.files import sha256_of
from mergeplan.system.progress import Progress
from mergeplan.system.reading import SETTINGS, read_bytes

# What the hub puts into a repository that is new.
_NEW = {".gitattributes"}
_AGAIN = "the command above tries again; what the hub has by now is not sent twice"
# Where transformers had a model from, in its config.json and tokenizer_config.json.
_WAS_AT = re.compile(rb'("_?name_or_path"\s*:\s*")(?:~|[A-Za-z]:)?[/\\][^"]*?([^"/\\]*)[/\\]*"')


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now."""

    repository: str
    url: str
    commit: str
    private: bool

    def line(self) -> str:
        """In words."""
        seen = "private" if self.private else "public"
        return f"{self.url}: pushed, {seen}, commit {self.commit[:10]}"


class Push:
    """A merge that is to be pushed.

    Args:
        repository: `ORG/NAME`.
        public: Whether all may see it.
        licence: That of the merge; `None` for the one in which the models' cards agree.
        quiet: Show no progress.

    Raises:
        MissingInputError, SurroundingsError: There is no client of the hub, or no token.
    """

    def __init__(
        self, repository: str, *, public: bool = False, licence: str | None = None, quiet: bool
    ) -> None:
        self._repository, self._public, self._licence = repository, public, licence
        self._hub = open_hub(quiet=quiet)
        self._there: Manifest | None = None

    def prepare(self, merge: CheckedMerge, *, create: bool = True) -> None:
        """Ask everything that may forbid it, and make the repository.

        Args:
            create: Whether a repository that is not there is made.

        Raises:
            InputError: A licence forbids it, or none is set.
            SurroundingsError: The hub refuses, or the repository has something else.
        """
        self._merge = merge
        self._card = Card(merge.config, merge.plan, self._licence)
        self._card.licences.check()
        with telling("ask the hub who you are"):
            token = (self._hub.whoami().get("auth") or {}).get("accessToken") or {}
            if token.get("role") == "read":
                raise SurroundingsError(
                    "the token for the hub may only read",
                    "use one that may write; huggingface.co/settings/tokens",
                )
        info = self._info()
        if info is not None:
            self._check_there(info)
        self._check_card()
        if info is None and create:
            with telling(f"make the repository `{self._repository}`"):
                self._hub.create_repo(self._repository, private=not self._public)
            info = self._info()
        self._head = info.sha if info is not None else None

    @property
    def _title(self) -> str:
        return self._repository.rpartition("/")[2]

    def _check_card(self) -> None:
        """Have the hub look at the card's head, as it does before a commit.

        Raises:
            InputError: It refuses it: a licence, say, that it does not know.
        """
        from huggingface_hub.utils import get_session

        with telling("have the model card checked by the hub"):
            # `ModelCard.validate` of older clients asks huggingface.co, wherever HF_ENDPOINT leads.
            response = get_session().post(
                f"{self._hub.endpoint}/api/validate-yaml",
                json={"content": self._card.text(self._title), "repoType": "model"},
            )
            if response.status_code == 400:
                faults = [str(fault.get("message")) for fault in response.json()["errors"]]
                raise InputError(
                    f"the hub refuses the model card: {cut('; '.join(faults), 300)}",
                    "`--license ID` takes words of huggingface.co/docs/hub/repositories-licenses",
                )

    def _info(self) -> Any:
        """What the hub says of the repository; `None` where it has none."""
        with telling(f"look at the repository `{self._repository}`"):
            try:
                return self._hub.model_info(self._repository)
            except Exception as error:
                # The hub says 401 of one that a valid token cannot see.
                if status_of(error) in (401, 404):
                    return None
                raise

    def _check_there(self, info: Any) -> None:
        """Refuse a repository that has something else, is seen by others, or is not ours."""
        name = f"repository `{self._repository}`"
        # An older client cannot ask.
        with telling(f"write to the {name}"), suppress(TypeError):
            self._hub.auth_check(self._repository, write=True)
        if bool(info.private) is self._public:
            found, hint = (
                ("private", "leave `--public` out, or make it public in its settings")
                if info.private
                else ("public", "pass `--public`, or choose another name")
            )
            raise SurroundingsError(f"{name} is there already, and is {found}", hint)
        names = {file.rfilename for file in info.siblings or ()} - _NEW
        self._there = self._manifest_of(info, names)
        if names and self._there is None:
            raise SurroundingsError(
                f"{name} holds something else ({listed(sorted(names), 3)}), which is not replaced",
                "choose another name; `hf upload` replaces what you name",
            )

    def _manifest_of(self, info: Any, names: set[str]) -> Manifest | None:
        """The manifest that was pushed there, if it is of this merge, and the card is as it was."""
        if not {MANIFEST, CARD} <= names:
            return None
        with TemporaryDirectory() as folder:
            with telling(f"read what the repository `{self._repository}` holds"):
                for name in (MANIFEST, CARD):
                    self._hub.hf_hub_download(
                        self._repository, name, revision=info.sha, local_dir=folder
                    )
            try:
                manifest = load_manifest(Path(folder))
            except MergeplanError:
                return None
            card = sha256_of(Path(folder, CARD))
        if manifest.plan_sha256 != self._merge.plan.data.sha256():
            return None
        if card != manifest.companions.get(CARD):
            raise SurroundingsError(
                f"`{CARD}` in the repository `{self._repository}` was changed there, and is not"
                " replaced",
                "choose another name; `hf upload` replaces what you name",
            )
        return manifest

    def verify(self, threads: int | None = None, progress: Progress | None = None) -> None:
        """Check that the merge is what its manifest says.

        Args:
            threads: That hash.

        Raises:
            InputError: It is not.
        """
        out = self._merge.out
        checked = verify(out, threads=threads, progress=progress)
        if not checked.matches:
            raise InputError(
                f"`{out}` is not what was merged, and is not pushed: {checked.differences[0]}",
                f"`hf upload {self._repository} {out}` publishes a folder as it is",
            )

    def send(self) -> Pushed:
        """Push the merge in one commit.

        Raises:
            SurroundingsError: The hub refuses, or cannot be reached.
        """
        out = self._merge.out
        manifest = load_manifest(out)
        then = self._there
        if then and (then.tensors, then.files) != (manifest.tensors, manifest.files):
            raise SurroundingsError(
                f"repository `{self._repository}` holds what this config made of other"
                " inputs, which is not replaced",
                "choose another name",
            )
        files = self._files(out, manifest)
        from huggingface_hub import CommitOperationAdd

        with telling(f"push `{out}` to `{self._repository}`", _AGAIN):
            done = self._hub.create_commit(
                self._repository,
                [CommitOperationAdd(name, file) for name, file in sorted(files.items())],
                commit_message=f"Merge by mergeplan {__version__}",
                # Nothing that came there meanwhile is replaced.
                parent_commit=self._head,
            )
        url = f"{self._hub.endpoint}/{self._repository}"
        return Pushed(self._repository, url, done.oid, not self._public)

    def _files(self, out: Path, manifest: Manifest) -> dict[str, bytes | str]:
        """Bytes or path of each file: what the manifest lists, the index, and words for others."""
        own = {
            CARD: self._card.text(self._title).encode(),
            CARD_CONFIG: self._card.config_text.encode(),
        }
        for name in ("config.json", "tokenizer_config.json"):
            if name in manifest.companions:
                text = read_bytes(out / name, SETTINGS)
                public_text = _WAS_AT.sub(rb'\1\2"', text)
                own |= {name: public_text} if public_text != text else {}
        indices = [path.name for path in out.iterdir() if path.name.endswith(INDEX_ENDING)]
        there = {*manifest.files, *manifest.companions, *indices}
        public = _public(manifest, self._card, own)
        own[MANIFEST] = (json.dumps(asdict(public), indent=2) + "\n").encode()
        return {name: str(out / name) for name in there} | own


def _public(manifest: Manifest, card: Card, own: dict[str, bytes]) -> Manifest:
    """A manifest for others: names without paths, and nothing of the disks here."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in own.items()}
    return replace(
        manifest,
        config=card.config_text,
        inputs=tuple(
            InputModel(
                card.names.of(model.model),
                tuple(
                    InputFile(PurePosixPath(file.path).name, file.bytes, 0) for file in model.files
                ),
            )
            for model in manifest.inputs
        ),
        companions={**manifest.companions, **hashes},
        left_out={name: card.names.within(why) for name, why in manifest.left_out.items()},
    )
