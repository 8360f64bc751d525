"""A LiteLLM guardrail that asks the gate of `o3-lightning serve` before a prompt reaches any model.

Put this file beside LiteLLM's configuration, set O3_GATE_URL (default http://127.0.0.1:8000), and add

    guardrails:
      - guardrail_name: o3-gate
        litellm_params: {guardrail: litellm_guardrail.O3Guardrail, mode: pre_call, default_on: true}
"""

import os
from typing import Any

import httpx
from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail

TIMEOUT_SECONDS = 15.0
TEXTS = ("messages", "prompt", "suffix", "tools", "functions", "response_format", "input", "instructions")
NO_ANSWER = ("embeddings", "moderation", "audio_transcription", "rerank")  # call types that tell no text


class O3Guardrail(CustomGuardrail):
    """Blocks prompts that the gate refuses; also those that it could not judge."""

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Returns the call unchanged, or raises if the gate refuses or does not answer."""
        if call_type in NO_ANSWER:
            return data
        url = os.environ.get("O3_GATE_URL", "http://127.0.0.1:8000")
        body = {name: data[name] for name in TEXTS if data.get(name)}
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            answer = await client.post(f"{url}/check/{call_type}", json=body)
        if not answer.is_success:
            raise HTTPException(answer.status_code, detail=answer.json())
        return data
