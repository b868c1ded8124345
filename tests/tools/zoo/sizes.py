"""How large a tiny model is, by the names of config.json's fields; and what single types need."""

from typing import Any

VOCABULARY = 96
LAYERS = 2
WIDTH = 32
HEADS = 4
HEAD = WIDTH // HEADS

_FIELDS: dict[int, str] = {
    VOCABULARY: """
        vocab_size src_vocab_size tgt_vocab_size decoder_vocab_size unpadded_vocab_size
        vocab_size_per_layer_input padded_vocab_size
    """,
    WIDTH: """
        hidden_size d_model n_embd embed_dim embedding_dim embedding_size emb_dim dim model_dim
        word_embed_proj_dim out_hidden_size projection_dim encoder_hidden_size cross_hidden_size
        projector_hidden_size output_dim attention_hidden_size hidden_size_global text_hidden_size
        vision_hidden_size decoder_hidden_size lru_width d_latents true_hidden_size
        vision_output_dim input_embedding_size output_embedding_size backbone_hidden_size
        image_text_hidden_size centroid_hidden_size audio_hidden_size thinker_hidden_size
        projection_hidden_size projector_input_dim projector_output_dim adapter_input_size
        patch_embed_hidden_size cross_attention_hidden_size decoder_dim ple_embed_dim
        dim_model_base encoder_dim output_hidden_size pooler_hidden_size pooler_output_size
        conv_output_size linear_hidden_size image_token_embed_dim num_attention_channels
        mamba_d_ssm n_embed adapter_out_dim adapter_in_dim base_channels upsample_groups
    """,
    48: """
        intermediate_size d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim mlp_dim ffn_hidden_size
        dense_intermediate_size n_inner dim_ff dff intermediate_size_mlp feed_forward_size
        inner_dim shared_intermediate_size downsample_hidden_size projection_intermediate_size
        decoder_intermediate_size hidden_dim projection_hidden_dim merged_hidden_size
        alignment_intermediate_size d_inner t2u_encoder_ffn_dim t2u_decoder_ffn_dim
        speech_encoder_intermediate_size
    """,
    16: """
        moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
        moe_shared_expert_intermediate_size expert_ffn_hidden_size share_expert_dim
        moe_hidden_size q_lora_rank kv_lora_rank o_lora_rank hidden_size_per_layer_input
        image_size crop_size num_mel_bins n_mel_bins mel_dim input_feat_size
        input_feat_per_channel feature_size router_hidden_size gated_norm_rank laurel_rank
        loop_gate_rank mamba_d_state codebook_dim codebook_size num_embeddings conv_channels
        subsampling_conv_channels sliding_window sliding_window_size attention_window_size
        local_attention input_size mel_bins max_image_size num_filters latent_channels
        codevector_dim proj_codevector_dim resolution codebook_vocab_size audio_vocab_size
        low_res_size adapter_rank embedding_rank shape_embed_dim pronunciation_embed_dim
        shape_vocab_size pronunciation_vocab_size n_embed_patches t2u_vocab_size
        unit_hifi_gan_vocab_size unit_embed_dim lang_embed_dim spkr_embed_dim char_vocab_size
        vocoder_num_langs vocoder_num_spkrs num_chroma composer_vocab_size hc_lowrank
        time_step_rank mamba_dt_rank prompt_mid_dim upsample_initial_channel
        speech_decoder_postnet_units speech_decoder_prenet_units entity_vocab_size entity_emb_size
        intra_bottleneck_size kv_channels_per_block num_feature_channels position_embedding_size
        vector_quantization_hidden_dimension frequency_embedding_size latent_size
        t2u_variance_predictor_embed_dim t2u_variance_predictor_hidden_dim speaker_embedding_dim
        num_centroids mel_vocab_size ext_pw_out_channel depthwise_separable_out_channel
        nemo_conv_channels conv_hidden_size post_conv_in_channels post_conv_out_channels
        post_conv_mid_channels tdnn_dim ssm_state_size xvector_output_dim classifier_proj_size
        output_channels embedding_channels context_size n_filters
    """,
    HEAD: """
        head_dim d_kv qk_nope_head_dim qk_rope_head_dim v_head_dim d_head attention_head_dim
        attention_head_size dim_head linear_key_head_dim linear_value_head_dim index_head_dim
        swa_head_dim mamba_d_head mamba_head_dim linear_head_dim kv_channels resampler_head_dim
        resampler_dim_head state_size global_head_dim cross_head_dim rotary_dim
        prediction_head_size mamba_chunk_size chunk_size num_query_tokens resampler_n_latents
        num_latents latent_query_num num_registers block_size index_block_size
        attention_chunk_size swa_v_head_dim relative_attention_num_buckets d_rel num_landmarks
        segment_means_seq_len resampler_num_latents embed_dim_per_head max_num_patches_side
        index_topk num_buckets local_attn_chunk_length lsh_attn_chunk_length hidden_head_dim
    """,
    HEADS: """
        num_attention_heads n_head n_heads num_heads encoder_attention_heads attention_heads
        decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads patch_size
        swa_num_attention_heads index_n_heads mamba_num_heads mamba_n_heads linear_num_heads
        linear_num_value_heads linear_num_key_heads num_experts num_local_experts n_routed_experts
        moe_num_experts encoder_num_attention_heads decoder_num_attention_heads resampler_n_heads
        cross_num_attention_heads num_self_attention_heads num_cross_attention_heads
        resampler_heads conf_num_attention_heads encoder_stride conv_kernel_size
        speech_encoder_attention_heads t2u_encoder_attention_heads t2u_decoder_attention_heads
        num_sliding_attention_heads pos_emb_height pos_emb_width posemb_grid_size expert_capacity
        n_mamba_heads zero_expert_num ffn_num_experts conv_depthwise_kernel_size heads_per_ngram
        num_conv_pos_embeddings num_groups
    """,
    LAYERS: """
        num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers depth layers
        num_decoder_layers num_encoder_layers encoder_num_hidden_layers decoder_num_hidden_layers
        num_key_value_heads num_kv_heads swa_num_key_value_heads num_query_groups
        num_experts_per_tok num_experts_per_token moe_k moe_topk top_k_experts
        encoder_num_key_value_heads decoder_num_key_value_heads cross_num_key_value_heads n_group
        n_groups num_expert_group topk_group o_groups attn_layer_period expert_layer_period
        full_attention_interval decoder_num_layers speech_encoder_layers t2u_encoder_layers
        t2u_decoder_layers speech_decoder_postnet_layers num_global_layers aligner_num_add_layers
        resampler_depth num_blocks conf_num_hidden_layers layer_group_size
        n_layers_per_attn_res_block num_self_attends_per_block max_window_layers
        num_conv_pos_embedding_groups sliding_window_pattern _sliding_window_pattern
        num_global_key_value_heads num_quantizers num_codebooks mamba_n_groups num_code_groups
        top_k num_codevectors_per_group n_mels_groups decoder_attention_num_groups
        n_layers_recurrent num_layers_per_stack
    """,
    1: """
        first_k_dense_replace attn_layer_offset expert_layer_offset moe_layer_start_index
        num_nextn_predict_layers n_shared_experts topk_groups moe_layer_interval num_dense_layers
        decoder_sparse_step norm_topk n_input_layers n_recurrent_layers n_output_layers
        centroid_intermediate_top_k
    """,
    64: """
        max_position_embeddings n_positions n_ctx max_source_positions max_target_positions
        max_seq_len model_max_length original_max_position_embeddings context_length seq_len
        num_position_embeddings max_2d_position_embeddings max_text_positions max_speech_positions
        max_encoder_position_embeddings max_decoder_position_embeddings
        t2u_max_position_embeddings max_length max_relative_position rel_extent audio_max_position
        encoder_max_relative_position max_num_patches max_pos_emb chunk_length conv_chunksize
    """,
}
FIELDS: dict[str, int] = {name: size for size, names in _FIELDS.items() for name in names.split()}

# Lists that are as long as they are.
LISTS: dict[str, list[Any]] = {
    "mrope_section": [2, 1, 1],
    "channel_multiplier": [1, 1],
    "conv_dim": [16] * 7,
    "downsample_channels": [16, 32],
    "image_grid_pinpoints": [[16, 16], [16, 32]],
}

# Without these, transformers cannot make a type's default config.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
}

# What a class of models needs.
CLASSES: dict[str, dict[str, Any]] = {"ReformerModelWithLMHead": {"is_decoder": True}}

# What a model type, of a model or of a part of one, needs beyond the rules.
TYPES: dict[str, dict[str, Any]] = {
    "apertus1p5": {"image_token_offset": 64, "audio_token_offset": 80},
    "apertus1p5_vision_tokenizer": {"channel_multiplier": [1, 1], "attn_resolutions": [8]},
    "aria": {
        "projector_patch_to_query_dict": {"16": 8},
        "max_value_projector_patch_to_query_dict": 8,
    },
    "bamba": {"mamba_n_heads": 8},
    "blt": {"encoder_hash_byte_group_vocab": 32},
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2}},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    "doge": {"is_moe": True},
    "dory": {
        "num_hidden_layers": 6,
        "layer_types": [
            "sliding_attention",
            "mlp",
            "full_attention",
            "mlp",
            "full_attention",
            "mlp",
        ],
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note_text": {
        "num_key_value_heads": 4,
        "head_dim": 16,
        "per_layer_config": {1: {"num_key_value_heads": 4}},
    },
    "emu3": {"vocabulary_map": {"<image>": 5}},
    "emu3_text_model": {"vocabulary_map": {"<image>": 5}},
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [16, 16],
        "rope_parameters": {"mrope_section": [1, 1, 2]},
    },
    "esm": {"vocab_size": 96, "pad_token_id": 1, "mask_token_id": 4},
    "esmc": {"num_key_value_heads": 4},
    "fast_vlm": {"vision_config": {"architecture": "fastvit_t8", "hidden_size": 768}},
    "flint": {"mlp_only_layers": [0]},
    "florence_vision": {
        "depths": [1, 1],
        "patch_size": [3, 3],
        "patch_stride": [4, 2],
        "patch_padding": [1, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [16, 32],
        "num_heads": [2, 4],
        "num_groups": [2, 4],
    },
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [48] * 4,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        "num_kv_shared_layers": 2,
    },
    "gemma3n_vision": {"model_args": {"channel_multiplier": 0.05}},
    "gemma4_assistant": {"text_config": {"num_kv_shared_layers": 2}},
    "gemma4_text": {
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 16,
    },
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": 2}},
    "glm5_next": {"num_key_value_heads": 4},
    "glm5_next_text": {"num_key_value_heads": 4, "index_kpool": 4},
    "granite4_vision": {
        "vision_config": {"hidden_size": 64},
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [0, 0, 1, 1],
    },
    "granitemoehybrid": {"mamba_n_heads": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl_text": {"head_dim": 8},
    "laguna": {"num_attention_heads_per_layer": [4, 4]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "molmo2_adapter": {"vision_feature_layer": [1, 0]},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "muse_spark_audio": {
        "patch_sizes": [4, 2],
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
    },
    "nemotron": {"num_key_value_heads": 2},
    "nemotron3_5_transcribe_asr_audio": {"num_key_value_heads": 4},
    "nemotron3_5_transcribe_word_timestamp": {"num_key_value_heads": 4},
    "nemotron3_diarization_audio": {"num_key_value_heads": 4},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"]},
    "neomme": {"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}},
    "perception_lm": {
        "vision_config": {"architecture": "test_vit", "model_args": {"embed_dim": 64}}
    },
    "qwen3_moe": {"mlp_only_layers": [0]},
    "qwen3_omni_moe": {"talker_config": {"spatial_merge_size": 2}},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ngram_vocab_size_base": 16,
        "split_ngram_parts": 2,
        "make_ngram_vocab_size_divisible_by": 2,
    },
    "radio": {"max_img_size": 32},
    "reformer": {
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 24],
        "attn_layers": ["local", "lsh"],
    },
    "seamless_m4t": {"conv_depthwise_kernel_size": 3},
    "seamless_m4t_v2": {"conv_depthwise_kernel_size": 3},
    "vibevoice_acoustic_tokenizer": {
        "downsampling_ratios": [2, 2],
        "depths": [1, 1, 1],
        "num_filters": 8,
    },
    "vibevoice_acoustic_tokenizer_decoder": {
        "downsampling_ratios": [2, 2],
        "depths": [1, 1, 1],
        "num_filters": 8,
    },
    "vibevoice_acoustic_tokenizer_encoder": {
        "downsampling_ratios": [2, 2],
        "depths": [1, 1, 1],
        "num_filters": 8,
    },
    "wavtokenizer_encoder": {"codebook_dim": 32},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
