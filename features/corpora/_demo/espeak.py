"""Plain speech from espeak-ng, through ctypes and the library in the wheel `espeakng-loader`.

espeak-ng (GPL-3.0-or-later) keeps state between calls: the same words sound different the second
time. So all words are spoken in one fixed order in a fresh process, and its random generator, by
default seeded by the clock, is seeded before each utterance.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import HeronryError

SAMPLE_RATE_HZ = 22_050
WORDS_PER_MINUTE = 215
PACKAGE = "espeakng-loader==0.2.4"
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h
_RATE = 1  # espeakRATE
_CHARACTERS = 1  # POS_CHARACTER
_UTF8 = 1  # espeakCHARS_UTF8
_OK = 0  # EE_OK
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def require() -> None:
    """Raise `HeronryError` unless the package that holds espeak-ng is installed."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise HeronryError(
            "the demo corpus is spoken by espeak-ng, but package espeakng-loader is not installed; "
            f"run `pip install {PACKAGE}`"
        )


def speak(requests: Iterable[tuple[str, str]]) -> list[NDArray[np.int16]]:
    """Speak pairs of (voice, text) in order; call it once, in a fresh process.

    Returns:
        One array `[samples]` at `SAMPLE_RATE_HZ` for each request.

    Raises:
        HeronryError: If the package is absent, or espeak-ng refuses a voice or says nothing.
    """
    require()
    loader: Any = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(loader.get_library_path())
    heard = bytearray()

    def listen(samples: Any, length: int, _events: Any) -> int:
        if samples and length > 0:
            heard.extend(ctypes.string_at(samples, 2 * length))
        return 0

    # A local variable, since ctypes does not keep the callback alive for espeak-ng.
    callback = _Callback(listen)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, loader.get_data_path().encode(), 0)
    if rate != SAMPLE_RATE_HZ:
        raise HeronryError(
            f"espeak-ng answered {rate} to its start; expected {SAMPLE_RATE_HZ} (its sample rate): "
            f"reinstall {PACKAGE}"
        )
    library.espeak_SetSynthCallback(callback)
    speech = []
    for voice, text in requests:
        heard.clear()
        _say(library, voice, text)
        if not heard:
            raise HeronryError(f"espeak-ng said nothing to {text!r} with voice {voice!r}")
        speech.append(np.frombuffer(bytes(heard), "<i2").astype(np.int16))
    library.espeak_Terminate()
    return speech


def _say(library: Any, voice: str, text: str) -> None:
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    if library.espeak_SetVoiceByName(voice.encode()) != _OK:
        raise HeronryError(f"espeak-ng has no voice {voice!r}; expected those of {PACKAGE}")
    library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
    words = text.encode()
    status = library.espeak_Synth(
        words, ctypes.c_size_t(len(words) + 1), 0, _CHARACTERS, 0, _UTF8, None, None
    )
    if status != _OK:
        raise HeronryError(f"espeak-ng answered {status} to {text!r}; expected {_OK}")
    library.espeak_Synchronize()
